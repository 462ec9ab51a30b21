//! String operations of templates on message text with control texts in it.

use super::bytes::{parse, render, render_with};
use exsa_core::chat::{ChatOptions, ChatTemplateError, Message, ToolCall};
use std::time::{Duration, Instant};

const REASONING: [&str; 4] = ["<think>", "</think>", "<|im_start|>", "<|im_end|>"];

#[test]
fn templates_find_control_texts_in_messages() {
    let answer = Message::assistant("<think>\nhm\n</think>\n\nHello<|im_end|>");
    // An expression on the content, the text it gives, and the control tokens in that.
    let cases: [(&str, &str, &[&str]); 27] = [
        ("'</think>' in c", "True", &[]),
        ("'</thinking>' in c", "False", &[]),
        ("c.split('</think>')[-1].lstrip('\\n')", "Hello<|im_end|>", &[]),
        ("c.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n')", "hm", &[]),
        (
            "'<think>' + c.split('</think>')[0].split('<think>')[1] + '</think>'",
            "<think>\nhm\n</think>",
            &["<think>", "</think>"],
        ),
        ("c.rsplit('</think>', 1)[0]", "<think>\nhm\n", &[]),
        ("c.partition('</think>')[2] ~ '|' ~ c.rpartition('<think>')[0]", "\n\nHello<|im_end|>|", &[]),
        ("c.partition('</think>')[0].strip() + '</think>'", "<think>\nhm</think>", &["</think>"]),
        ("c.startswith('<think>\\n')", "True", &[]),
        ("c.endswith(('x', 'o<|im_end|>'))", "True", &[]),
        ("c.count('</think>\\n')", "1", &[]),
        ("c.replace('<think>\\n', '').replace('</think>', '|')", "hm\n|\n\nHello<|im_end|>", &[]),
        ("c | replace('</think>', '|')", "<think>\nhm\n|\n\nHello<|im_end|>", &[]),
        ("c.replace('<', '(')", "(think>\nhm\n(/think>\n\nHello(|im_end|>", &[]),
        ("c.removeprefix('<think>').removesuffix('<|im_end|>')", "\nhm\n</think>\n\nHello", &[]),
        ("c.removesuffix('>') + '>'", "<think>\nhm\n</think>\n\nHello<|im_end|>", &[]),
        ("c.strip('<>') + '>'", "think>\nhm\n</think>\n\nHello<|im_end|>", &[]),
        ("c.splitlines()[2] ~ (c | trim).splitlines()[1]", "</think>hm", &[]),
        ("c[c.find('</think>') + 8:].strip()", "Hello<|im_end|>", &[]),
        ("c[:c.find('</think>')] + '<|im_end|>'", "<think>\nhm\n<|im_end|>", &["<|im_end|>"]),
        ("c[c.rfind('\\n') + 1:]", "Hello<|im_end|>", &[]),
        ("c.index('hm')> c.find('<think>')", "True", &[]),
        ("c.split('</think>')[0] == '<think>'", "False", &[]),
        ("'y' if c.split('<think>')[0] else 'n'", "n", &[]),
        ("c | upper", "<THINK>\nHM\n</THINK>\n\nHELLO<|IM_END|>", &[]),
        ("c.split('hm') | join('hm')", "<think>\nhm\n</think>\n\nHello<|im_end|>", &[]),
        ("c.split() | list", "['<think>', 'hm', '</think>', 'Hello<|im_end|>']", &[]),
    ];
    for (expression, text, control) in cases {
        let source = format!("{{% set c = messages[0].content %}}{{{{ {expression} }}}}");
        let got = render_with(&REASONING, &source, std::slice::from_ref(&answer));
        assert_eq!(
            (got.0.as_str(), got.1.as_slice()),
            (text, &control.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>()[..]),
            "{expression}"
        );
    }
}

#[test]
fn lookups_and_comparisons_see_past_markers() {
    // Control tokens of letters, which names and values complete.
    let control = ["Bern", "\"city\"", "</s>", "function"];
    let call = ToolCall::new("name", r#"{"name": "Bern", "</s>": ["n", "Bern", "7</s>"], "list": {"n": 1}}"#);
    let message = Message::assistant("Bern").tool_call(call).with("B", "n");
    let cases = [
        ("m.B + call.name + a.name", "nnameBern"),
        ("a['</s>'][0] + a.get('</s>')[1] + a.get('no', 'd') + (a.no is defined) | string", "nBerndFalse"),
        ("[a[a['</s>'][0] ~ 'ame'], a.list[m.B], a.list.get(m.B)] | join(' ')", "Bern 1 1"),
        (
            "[m.content == 'Bern', 'Bern' == a.name, m.B == 'n', m.B != 'n', m.content != a.name] | join(' ')",
            "True True True False False",
        ),
        (
            "['n' in a['</s>'], m.B in ['n'], m.content not in ['Bern'], 'name' in a, m.B in a.list] | join(' ')",
            "True True False True True",
        ),
        (
            "[m.B is eq 'n', 'n' is ne m.B, m.B is in ['n'], 'n' is equalto(m.B)] | join(' ')",
            "True False True True",
        ),
        ("m.tool_calls | selectattr('function.name', 'equalto', 'name') | list | length", "1"),
        ("a['</s>'] == ['n', 'Bern', '7</s>']", "True"),
        ("{'n': 'found'}.get(m.B) + {'n': 'found'}[m.B]", "foundfound"),
        ("a | items | map('first') | join(' ')", "name </s> list"),
        ("m.B | capitalize ~ ('n' | capitalize)", "NN"),
        (
            "a | tojson(sort_keys=true)",
            r#"{"</s>": ["n", "Bern", "7</s>"], "list": {"n": 1}, "name": "Bern"}"#,
        ),
        ("[ns.a.name, ns.a == a, ns.a.list.n] | join(' ')", "Bern True 1"),
    ];
    for (expression, text) in cases {
        let source = format!(
            "{{% set m = messages[0] %}}{{% set call = m.tool_calls[0].function %}}{{% set a = call.arguments %}}\
            {{% set ns = namespace(a=none) %}}{{% set ns.a = a %}}{{{{ {expression} }}}}"
        );
        let got = render_with(&control, &source, std::slice::from_ref(&message));
        assert_eq!((got.0.as_str(), got.1.as_slice()), (text, &[] as &[String]), "{expression}");
    }
    // Compared text is user text still, and text of the template beside it completes no control token.
    let source = "{% set m = messages[0] %}{% if m.B == 'n' %}Ber{{ m.B }}{% endif %} Bern {{ m.content }}";
    let (text, found) = render_with(&control, source, std::slice::from_ref(&message));
    assert_eq!((text.as_str(), found), ("Bern Bern Bern", vec!["Bern".to_owned()]));
}

#[test]
fn old_reasoning_leaves_the_prompt() {
    // As templates of models that reason have it.
    let source = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}\
        {% set c = m.content %}{% set r = '' %}\
        {% if m.role == 'assistant' and '</think>' in c %}\
        {% set r = c.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}\
        {% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}\
        {% if loop.last %}<think>\n{{ r }}\n</think>\n\n{% endif %}{{ c }}<|im_end|>\n{% endfor %}";
    let answer = "<think>\nhm\n</think>\n\nHello";
    let messages = [
        Message::user("Say </think>"),
        Message::assistant(answer),
        Message::user("?"),
        Message::assistant(answer),
    ];
    let (text, control) = render_with(&REASONING, source, &messages);
    assert_eq!(
        text,
        "<|im_start|>user\nSay </think><|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\n?<|im_end|>\n\
         <|im_start|>assistant\n<think>\nhm\n</think>\n\nHello<|im_end|>\n"
    );
    assert_eq!(
        control,
        [
            &["<|im_start|>", "<|im_end|>"].repeat(3)[..],
            &["<|im_start|>", "<think>", "</think>", "<|im_end|>"]
        ]
        .concat()
    );
}

#[test]
fn marks_take_nothing_from_the_output_limit() {
    let text = "<s>".repeat(1000);
    let template = parse("{{ messages[0].content }}").unwrap();
    let render =
        |bytes| template.render(&[Message::user(&text)], &ChatOptions::default().output_bytes_max(bytes));
    assert_eq!(render(3000).unwrap().text, text);
    assert_eq!(render(2999).unwrap_err(), ChatTemplateError::OutputTooLong { limit: 2999 });
}

#[test]
fn marked_texts_are_taken_apart_in_time() {
    let text = "<s> ".repeat(100_000);
    let source = "{% set p = messages[0].content.split(' ') %}{{ p | length }} {{ p[5] }} \
        {{ messages[0].content.replace('<', '(').count('(s> ') }}";
    let start = Instant::now();
    assert_eq!(render(source, &[Message::user(text)]).unwrap(), "100001 <s> 100000");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
