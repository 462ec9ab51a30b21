//! Memory of hostile chat templates is bounded, however they allocate it.
#![cfg(feature = "chat-template")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::chat::{ChatOptions, ChatTemplate, ChatTemplateError, ControlTexts, Message};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, with live bytes and their peak for each thread.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    LIVE.set(LIVE.get() + bytes);
    PEAK.set(PEAK.get().max(LIVE.get()));
}

// SAFETY: every call goes on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps to the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `ptr` came from `System` with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // The old memory and the new are there together at worst.
        count(new_size as isize);
        count(-(layout.size() as isize));
        // SAFETY: `ptr` came from `System` with this layout, and the caller keeps to the rest of the
        // contract.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Maximum peak bytes of a template: the limit of its data, and as much again for growing buffers.
const PEAK_MAX: isize = (2 * 96) << 20;

fn peak_of(source: &str, messages: &[Message]) -> (isize, Result<usize, ChatTemplateError>) {
    let template = ChatTemplate::parse(source, ControlTexts::default()).unwrap();
    template.supports();
    let before = LIVE.get();
    PEAK.set(before);
    let result = template.render(messages, &ChatOptions::default()).map(|rendered| rendered.text.len());
    (PEAK.get() - before, result)
}

#[test]
fn hostile_templates_stay_within_a_limit() {
    let kept = |make: &str| {
        format!(
            "{{% set ns = namespace(l=[]) %}}{{% for i in range(100000) %}}{{% set ns.l = ns.l + [{make}] %}}{{% endfor %}}"
        )
    };
    let long = "{% set s = 'x' * 1000000 %}";
    let sources = [
        "{{ 'x' * 100000000000 }}".to_owned(),
        "{% set ns = namespace(s='x') %}{% for i in range(100000) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}".to_owned(),
        "{% set ns = namespace(s='x') %}{% for i in range(100000) %}{% set ns.s = ns.s + ns.s %}{% endfor %}".to_owned(),
        "{% set ns = namespace(s=[1]) %}{% for i in range(100000) %}{% set ns.s = ns.s + ns.s %}{% endfor %}".to_owned(),
        kept("'x' * 500000"),
        kept("'x' * 500000 ~ i"),
        kept("'%500000d' | format(i)"),
        kept("'x' | center(500000 + i)"),
        kept("('a\\n' * 1000) | indent(500 + i)"),
        kept("('a' * 1000) | replace('a', 'b' * (500 + i))"),
        kept("('a' * 1000).replace('a', 'b' * (500 + i))"),
        kept("range(700) | join('x' * (700 + i))"),
        kept("('x' * 500000) | upper"),
        kept("('x' * 500000).title()"),
        kept("('<' * 500000) | e"),
        kept("('x ' * 200000).split()"),
        kept("('x\\n' * 200000).splitlines()"),
        kept("('\"' * 500000) | tojson"),
        kept("range(10000) | list"),
        kept("dict(a='x' * 500000)"),
        kept("('x' * 500000) | list"),
        kept("('x' * 500000) | urlencode"),
        format!("{long}{}", kept("s ~ i")),
        format!("{long}{{% for i in range(100000) %}}{{{{ s }}}}{{% endfor %}}"),
        format!("{long}{{% set all %}}{{% for i in range(100000) %}}{{{{ s }}}}{{% endfor %}}{{% endset %}}"),
        format!("{long}{{{{ s.replace('x', s) }}}}"),
        format!("{long}{{{{ s | replace('', s) }}}}"),
        format!("{long}{{{{ (s * 100) | indent(100, true) }}}}"),
        format!("{long}{{{{ [{}] }}}}", vec!["s ~ 'y'"; 100].join(", ")),
        "{% macro m(n) %}{% set b %}{{ 'x' * 1000000 }}{{ m(n + 1) }}{% endset %}{{ b }}{{ b }}{% endmacro %}{{ m(0) }}".to_owned(),
        "{% set ns = namespace(s='<') %}{% for i in range(60) %}{% set ns.s = (ns.s ~ ns.s) | e %}{% endfor %}".to_owned(),
        "{% for i in range(100000) %}{% set x = 'x' * 10000000 %}{% endfor %}".to_owned(),
    ];
    for source in sources {
        let (peak, result) = peak_of(&source, &[]);
        assert!(peak < PEAK_MAX, "{peak} bytes at the peak: {result:?} for {source:.160}");
        let limited = matches!(
            result,
            Err(ChatTemplateError::Endless { .. }
                | ChatTemplateError::OutputTooLong { .. }
                | ChatTemplateError::Render { .. })
        );
        assert!(limited, "{result:?} for {source:.160}");
    }
}

#[test]
fn long_conversations_take_a_few_times_their_size() {
    let messages: Vec<Message> =
        (0..20_000).map(|i| Message::user(format!("{i} {}", "word ".repeat(40)))).collect();
    let source = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content | trim + '\\n' }}{% endfor %}";
    let (peak, result) = peak_of(source, &messages);
    assert!(result.unwrap() > 4_000_000);
    assert!(peak < 100 << 20, "{peak} bytes at the peak");
}
