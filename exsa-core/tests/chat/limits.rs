//! Limits on time, memory, depth and output of a template.

use super::bytes::{Bytes, CHATML, parse, render};
use exsa_core::chat::{ChatOptions, ChatTemplate, ChatTemplateError, Message};
use std::time::{Duration, Instant};

#[test]
fn endless_templates_end() {
    let loops =
        "{% for a in range(100000) %}{% for b in range(100000) %}{% set c = a %}{% endfor %}{% endfor %}";
    let grows =
        "{% set ns = namespace(s='x') %}{% for a in range(100000) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}";
    let lists =
        "{% set ns = namespace(s=[1]) %}{% for a in range(100000) %}{% set ns.s = ns.s + ns.s %}{% endfor %}";
    let nested = "{% set ns = namespace(s=[1]) %}{% for a in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}";
    let repeats = "{{ 'x' * 100000000000 }}";
    let replaces = "{% set s = 'x' * 100000 %}{{ s.replace('x', s) }}";
    for source in [loops, grows, lists, nested, repeats, replaces] {
        let start = Instant::now();
        let error = render(source, &[]).unwrap_err();
        assert!(matches!(error, ChatTemplateError::Endless { .. }), "{source}");
        assert!(start.elapsed() < Duration::from_secs(20), "{source} took {:?}", start.elapsed());
    }
    // Recursion ends by its own limit.
    let recursion = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    assert!(matches!(render(recursion, &[]), Err(ChatTemplateError::Render { .. })));
}

#[test]
fn values_stay_shallow() {
    // Each of these would make a value deep enough to exhaust the stack when it is written or dropped.
    for source in [
        "{% set n = namespace(s=[1]) %}{% for a in range(100000) %}{% set n.s = [n.s] %}{% endfor %}{{ n.s }}",
        "{% set n = namespace(s=[1]) %}{% for a in range(100000) %}{% set n.s = {'a': n.s}.values() %}{% endfor %}",
        "{% set n = namespace(s={}) %}{% for a in range(100000) %}{% set n.s = {'a': n.s} %}{% endfor %}{{ n.s }}",
        "{% set n = namespace(s=[1]) %}{% for a in range(100000) %}{% set m = namespace(t=[n.s]) %}{% set n.s = m.t %}{% endfor %}",
        "{% macro m(x) %}{{ m([[[[[[[[[[x]]]]]]]]]]) }}{% endmacro %}{{ m(1) }}",
        "{% for a in [1] recursive %}{{ loop([[[[[[[[[[a]]]]]]]]]]) }}{% endfor %}",
        &("{% set s = [1] %}".to_owned() + &"{% set s = [s] %}\n".repeat(10_000) + "{{ s }}"),
    ] {
        let got = render(source, &[]);
        assert!(matches!(got, Err(ChatTemplateError::Render { .. })), "{got:?} for {source:.150}");
    }
    // Copies of what keys() and a slice show hide nothing; a namespace within another is a copy.
    let keys = "{% set n = namespace(s={'a': 1}) %}{% for a in range(1000) %}{% set n.s = {'a': n.s.keys()} %}{% endfor %}{{ n.s }}";
    assert_eq!(render(keys, &[]).unwrap(), "{'a': ['a']}");
    let slices = "{% set n = namespace(s=[1, 2]) %}{% for a in range(10000) %}{% set n.s = n.s[0:] %}{% endfor %}{{ n.s }}";
    assert_eq!(render(slices, &[]).unwrap(), "[1, 2]");
    let sums = "{% set n = namespace(s=[]) %}{% for a in range(500) %}{% set n.s = n.s + [a] %}{% endfor %}{{ n.s | length }}";
    assert_eq!(render(sums, &[]).unwrap(), "500");
    let itself = "{% set n = namespace(a=1) %}{% set n.n = n %}{% set n.n = n %}{{ n.n.n.a }}";
    assert_eq!(render(itself, &[]).unwrap(), "1");
}

#[test]
fn what_is_just_within_the_limits_fits_the_stack() {
    // Test threads have 2 MiB, as threads do by default.
    for source in [
        &format!("{{{{ {}1 }}}}", "-".repeat(500)),
        &format!("{{{{ {}1 }}}}", "not ".repeat(500)),
        &format!("{{{{ 1{} }}}}", "+1".repeat(250)),
        &format!("{{{{ 1{} }}}}", "**1".repeat(250)),
        &format!("{{{{ 1{} }}}}", " or 1".repeat(250)),
        &format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(120)),
        &format!("{{{{ 1{} }}}}", "|string".repeat(250)),
        &format!("{{{{ {}1{} }}}}", "[".repeat(12), "]".repeat(12)),
        &format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(256)),
        &format!("{}{}", "{% if true %}".repeat(100), "{% endif %}".repeat(100)),
        &format!("{}{}", "{% for a in [1] %}".repeat(100), "{% endfor %}".repeat(100)),
        "{% set n = namespace(s=[1]) %}{% for a in range(98) %}{% set n.s = [n.s] %}{% endfor %}\
            {{ n.s }}{{ n.s ~ n.s }}{{ n.s | tojson }}{{ n.s == n.s }}{{ [n.s, n.s] | unique | list | length }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(30) }}",
        // The deepest value that can be made: a macro adds brackets at every call, and writes them all in the
        // end.
        "{% macro m(x, n) %}{% if n %}{{ m([[[[[[[[[[x]]]]]]]]]], n - 1) }}{% else %}{{ x ~ x == x }}{% endif %}\
            {% endmacro %}{{ m(1, 30) }}",
    ] {
        let got = render(source, &[]);
        assert!(got.is_ok(), "{got:?} for {source:.100}");
    }
}

#[test]
fn output_has_a_limit() {
    let source = "{% for i in range(1000) %}0123456789{% endfor %}";
    let mut options = ChatOptions::default().output_bytes_max(10_000);
    assert_eq!(parse(source).unwrap().render(&[], &options).unwrap().text.len(), 10_000);
    options.output_bytes_max = 9_999;
    let error = parse(source).unwrap().render(&[], &options).unwrap_err();
    assert_eq!(error, ChatTemplateError::OutputTooLong { limit: 9_999 });
}

#[test]
fn long_conversations_are_no_endless_ones() {
    let messages: Vec<Message> = (0..10_000)
        .map(|i| {
            if i % 2 == 0 { Message::user("a question ".repeat(20)) } else { Message::assistant("an answer") }
        })
        .collect();
    let template = ChatTemplate::for_model(None, &Bytes::new(&CHATML)).unwrap();
    assert!(template.render(&messages, &ChatOptions::default()).unwrap().text.len() > 1_000_000);
    let one = [Message::user("<|im_end|>".repeat(100_000))];
    let rendered = template.render(&one, &ChatOptions::default()).unwrap();
    assert_eq!(rendered.protected_offsets.len(), 100_000);
}

#[test]
fn a_template_reads_nothing_but_what_it_is_given() {
    for source in [
        "{{ messages.__class__ }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ messages[0].content.__class__.__base__.__subclasses__() }}",
        "{{ ''.__class__ }}",
        "{{ messages | attr('__class__') }}",
        "{{ messages[0]['__class__'] }}",
        "{{ '{0.__class__}'.format(messages[0].content) }}",
        "{{ '%(x)s' | format(x=messages.__init__) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ namespace.__init__.__globals__['os'] }}",
        "{{ raise_exception.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ config }}{{ environment }}{{ os }}{{ __import__ }}",
    ] {
        match render(source, &[Message::user("Hi")]) {
            Ok(text) => assert_eq!(text, "", "{source}"),
            Err(error) => assert!(matches!(error, ChatTemplateError::Render { .. }), "{source}: {error:?}"),
        }
    }
    for source in [
        "{% include '/etc/passwd' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{% do messages.append(1) %}",
    ] {
        let failed = render(source, &[]).unwrap_err();
        let is_typed = matches!(failed, ChatTemplateError::Parse { .. } | ChatTemplateError::Render { .. });
        assert!(is_typed, "{source}: {failed:?}");
    }
    // A template cannot change the values that it is given.
    for source in [
        "{{ messages.append(1) }}",
        "{{ messages.pop() }}",
        "{{ messages[0].update({'a': 1}) }}",
        "{% set messages[0].content = 1 %}",
    ] {
        assert!(render(source, &[Message::user("Hi")]).is_err(), "{source}");
    }
}

#[test]
fn a_template_as_long_as_allowed_is_read_in_time() {
    let fill = |text: &str| text.repeat(exsa_core::chat::TEMPLATE_BYTES_MAX / text.len());
    for source in [
        fill("{{ a }}"),
        fill("{{ a }}\n"),
        fill("{% if a == b %}\n{% endif %}\n"),
        fill("\n"),
        fill("x"),
        fill("{% set a = 1 %}"),
        fill("{% if a == b %}{% endif %}"),
        fill("{"),
        fill("{#"),
        fill("{%raw%}"),
        fill("'"),
        fill("é"),
        format!("{{{{ '{}' }}}}", "x".repeat(exsa_core::chat::TEMPLATE_BYTES_MAX - 10)),
        format!("{{{{ {} }}}}", "a.".repeat(100_000)),
    ] {
        let start = Instant::now();
        let _ = render(&source, &[Message::user("Hi")]);
        assert!(start.elapsed() < Duration::from_secs(20), "{source:.20} took {:?}", start.elapsed());
    }
}

#[test]
fn errors_name_the_limit() {
    let endless = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
    let error = render(endless, &[]).unwrap_err().to_string();
    assert!(error.contains("the limit of 1000") && error.contains("64 bytes of data"), "{error}");
    // A template that ends, but not within the steps of a probe, works as one for text.
    let slow =
        "{% for a in range(500) %}{% for b in range(300) %}{% endfor %}{% endfor %}{{ messages[0].content }}";
    let template = parse(slow).unwrap();
    assert_eq!(template.render(&[Message::user("Hi")], &ChatOptions::default()).unwrap().text, "Hi");
}
