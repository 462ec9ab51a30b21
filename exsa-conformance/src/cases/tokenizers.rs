//! The tokenizer's contract.

use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Failure, Outcome};
use crate::fixture::Fixture;
use crate::random::Random;
use exsa_core::TokenId;
use exsa_core::tokenizer::{EncodeOptions, Tokenizer};
use std::time::{Duration, Instant};

const TEXTS: [&str; 14] = [
    "Hello, world.",
    " leading and trailing ",
    "",
    " ",
    "   ",
    "\n\n\ttabs and\r\nlines\n",
    "naïve café ÀÉÎ",
    "中文 かな 가나 ไทย",
    "🦙👩‍👩‍👧‍👦 e\u{301} \u{200d}\u{feff}",
    "1234567890 1e-5 3.14159",
    "fn main() { println!(\"{}\", x[0]); }",
    "\u{0}\u{1}\u{7f}\u{80}\u{fffd}\u{10ffff}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "<|not a token|> </x> <0x0A> \u{2581}",
];

fn plain(tokenizer: &dyn Tokenizer, text: &str) -> Vec<TokenId> {
    let mut ids = Vec::new();
    tokenizer.encode(text, &EncodeOptions::default(), &mut ids);
    ids
}

fn special(tokenizer: &dyn Tokenizer, text: &str, offsets: &[usize]) -> Vec<TokenId> {
    let mut ids = Vec::new();
    tokenizer.encode(
        text,
        &EncodeOptions::default().parse_special(true).protected_offsets(offsets),
        &mut ids,
    );
    ids
}

fn decode(tokenizer: &dyn Tokenizer, ids: &[TokenId]) -> String {
    let mut bytes = Vec::new();
    ids.iter().for_each(|id| tokenizer.piece(*id, &mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Normal form for comparison: without the leading space added by the
/// vocabulary, and with spaces in place of SentencePiece's space character.
fn normal(tokenizer: &dyn Tokenizer, text: &str, decoded: bool) -> String {
    let text =
        if decoded && tokenizer.leading_space() { text.strip_prefix(' ').unwrap_or(text) } else { text };
    text.replace('\u{2581}', " ")
}

fn round_trip(tokenizer: &dyn Tokenizer, text: &str) -> Result<(), Failure> {
    let ids = plain(tokenizer, text);
    let shown: String = text.chars().take(60).collect();
    let check_ids = check(clause::ENCODE, format!("encode {shown:?}"));
    let outside = ids.iter().find(|id| **id as usize >= tokenizer.n_vocab());
    check_ids.holds(outside.is_none(), &format!("ids below {}", tokenizer.n_vocab()), outside)?;
    check_ids.holds(plain(tokenizer, text) == ids, "the same ids each time", &ids)?;
    let unknown = tokenizer.special().unk;
    let control = ids.iter().find(|id| tokenizer.is_control(**id) && Some(**id) != unknown);
    check(clause::CONTROL, format!("encode {shown:?} without `special`")).holds(
        control.is_none(),
        "no control token",
        control,
    )?;
    let decoded = normal(tokenizer, &decode(tokenizer, &ids), true);
    check(clause::PIECES, format!("encode {shown:?} and concatenate the pieces of {ids:?}"))
        .equal(decoded, normal(tokenizer, text, false))
}

/// Texts of many kinds round-trip; plain text gives no control tokens; ids are inside the vocabulary.
pub fn tokenizer_round_trips(fixture: &Fixture) -> CaseResult {
    let tokenizer = fixture.model()?.tokenizer();
    for text in TEXTS {
        round_trip(&*tokenizer, text)?;
    }
    for (_, text) in tokenizer.control_tokens().iter().take(40) {
        round_trip(&*tokenizer, text)?;
        round_trip(&*tokenizer, &format!("a {text}{text} b"))?;
    }
    Ok(Outcome::Passed)
}

/// 500 random texts: any characters, and word fragments in any order.
pub fn tokenizer_on_random_texts(fixture: &Fixture) -> CaseResult {
    let tokenizer = fixture.model()?.tokenizer();
    let mut random = Random::new(11);
    let words = [
        "a", "b", " ", "  ", "\n", "the", " The", "'s", "1", "12", "é", "中", "🦙", "<", "|", ">", "\u{301}",
    ];
    for i in 0..500 {
        let mut text = String::new();
        for _ in 0..random.below(40) {
            match (i + random.below(2)) % 3 {
                0 => text.extend(char::from_u32(random.below(0x11_0000) as u32)),
                1 => text.extend(char::from_u32(random.below(0x800) as u32)),
                _ => text.push_str(words[random.below(words.len())]),
            }
        }
        round_trip(&*tokenizer, &text)?;
    }
    Ok(Outcome::Passed)
}

/// `encode` appends to its output, adds nothing before or after the text, and no token for an empty text.
pub fn encode_adds_only_the_text(fixture: &Fixture) -> CaseResult {
    let tokenizer = fixture.model()?.tokenizer();
    check(clause::ENCODE, "encode an empty text").equal(plain(&*tokenizer, ""), vec![])?;
    check(clause::ENCODE, "encode an empty text with `special`")
        .equal(special(&*tokenizer, "", &[]), vec![])?;
    let alone = plain(&*tokenizer, "Hello");
    let mut ids = vec![7, 8];
    tokenizer.encode("Hello", &EncodeOptions::default(), &mut ids);
    check(clause::ENCODE, "encode \"Hello\" behind the ids 7, 8")
        .equal(ids, [&[7, 8], &alone[..]].concat())?;
    let roles = tokenizer.special();
    for (name, role) in [("BOS", roles.bos), ("EOS", roles.eos)] {
        let given = alone.iter().any(|id| Some(*id) == role);
        check(clause::ENCODE, "encode \"Hello\"").holds(!given, &format!("no {name}"), &alone)?;
    }
    Ok(Outcome::Passed)
}

/// Control tokens are recognized only where allowed, and not across a protected offset; they have no text.
pub fn control_tokens_only_where_allowed(fixture: &Fixture) -> CaseResult {
    let tokenizer = fixture.model()?.tokenizer();
    let control = tokenizer.control_tokens();
    if control.is_empty() {
        return Ok(Outcome::Skipped("the vocabulary has no control tokens".into()));
    }
    // If one token's text is a prefix of another's, the longest match decides.
    let ambiguous = |text: &str| {
        text.is_empty()
            || control
                .iter()
                .filter(|(_, other)| other.contains(text) || text.contains(other.as_str()))
                .count()
                > 1
    };
    for (id, text) in control.iter().filter(|(_, text)| !ambiguous(text)).take(64) {
        let input = format!("control token {id}, {text:?}");
        check(clause::CONTROL, &input).holds(tokenizer.is_control(*id), "`is_control`", false)?;
        check(clause::CONTROL, &input).equal(tokenizer.token_text(*id), Some(text.as_str()))?;
        check(clause::CONTROL, format!("{input}: its piece"))
            .equal(decode(&*tokenizer, &[*id]), String::new())?;
        let found = special(&*tokenizer, text, &[]);
        check(clause::CONTROL, format!("{input}, encoded with `special`")).equal(found, vec![*id])?;
        let inside = format!("a{text}b");
        let found = special(&*tokenizer, &inside, &[]);
        check(clause::CONTROL, format!("encode {inside:?} with `special`")).holds(
            found.contains(id),
            &format!("{id} among the ids"),
            &found,
        )?;
        for offset in 2..1 + text.len() {
            let found = special(&*tokenizer, &inside, &[offset]);
            check(
                clause::PROTECTED_OFFSETS,
                format!("encode {inside:?} with `parse_special` and {offset} protected"),
            )
            .holds(!found.contains(id), &format!("no {id} among the ids"), &found)?;
        }
        for offsets in [vec![1], vec![1 + text.len()], vec![0, 1, 1 + text.len(), 500]] {
            let found = special(&*tokenizer, &inside, &offsets);
            check(
                clause::PROTECTED_OFFSETS,
                format!("encode {inside:?} with `parse_special` and {offsets:?} protected"),
            )
            .holds(
                found.contains(id),
                &format!("{id} among the ids: no protected offset is inside"),
                &found,
            )?;
        }
        let found = plain(&*tokenizer, &inside);
        check(clause::CONTROL, format!("encode {inside:?} without `special`")).holds(
            !found.contains(id),
            &format!("no {id} among the ids"),
            &found,
        )?;
    }
    Ok(Outcome::Passed)
}

/// Ids outside the vocabulary have no piece and no text; role ids are inside, and EOS ends generation.
pub fn ids_and_roles(fixture: &Fixture) -> CaseResult {
    let model = fixture.model()?;
    let tokenizer = model.tokenizer();
    let n_vocab = tokenizer.n_vocab();
    let rows = model.info().n_vocab;
    check(clause::SPECIAL_IDS, "the tokenizer's vocabulary and the rows of logits").holds(
        n_vocab > 0 && n_vocab <= rows,
        &format!("1 to {rows} tokens"),
        n_vocab,
    )?;
    for id in [n_vocab as TokenId, n_vocab as TokenId + 1, i32::MAX as TokenId, TokenId::MAX] {
        check(clause::PIECE_OUTSIDE, format!("the piece of {id}"))
            .equal(decode(&*tokenizer, &[id]), String::new())?;
        check(clause::PIECE_OUTSIDE, format!("the text of {id}")).equal(tokenizer.token_text(id), None)?;
        check(clause::PIECE_OUTSIDE, format!("whether {id} is a control token"))
            .equal(tokenizer.is_control(id), false)?;
    }
    let special = tokenizer.special();
    let ids = [special.bos, special.eos, special.unk, special.pad];
    for id in ids.into_iter().flatten().chain(special.end_of_generation.iter().copied()) {
        let check = check(clause::SPECIAL_IDS, format!("{special:?}"));
        check.holds((id as usize) < n_vocab, &format!("ids below {n_vocab}"), id)?;
        check.holds(tokenizer.token_text(id).is_some(), "a text for each", id)?;
    }
    let check = check(clause::SPECIAL_IDS, format!("end_of_generation {:?}", special.end_of_generation));
    check.holds(special.end_of_generation.is_sorted(), "sorted", false)?;
    if let Some(eos) = special.eos {
        check.holds(special.end_of_generation.contains(&eos), &format!("EOS, {eos}, in it"), false)?;
    }
    check.holds(!special.add_bos || special.bos.is_some(), "a BOS where prompts start with it", special)?;
    Ok(Outcome::Passed)
}

/// Long texts that are adversarial for merges take at most seconds, even in a debug build.
pub fn long_texts_are_encoded_in_time(fixture: &Fixture) -> CaseResult {
    const BYTES: usize = 256 << 10;
    let tokenizer = fixture.model()?.tokenizer();
    for unit in ["a", " ", "ab", "\n", "the cat ", "🦙", "<", "1", "\u{301}"] {
        let text = unit.repeat(BYTES / unit.len());
        let start = Instant::now();
        let ids = plain(&*tokenizer, &text);
        let took = start.elapsed();
        let check = check(clause::ENCODE, format!("encode {unit:?} repeated to {BYTES} bytes"));
        check.holds(!ids.is_empty(), "some ids", 0)?;
        check.holds(took < Duration::from_secs(20), "less than 20 s", took)?;
    }
    Ok(Outcome::Passed)
}

/// Several threads encode concurrently.
pub fn one_tokenizer_on_several_threads(fixture: &Fixture) -> CaseResult {
    let tokenizer = fixture.model()?.tokenizer();
    let expected: Vec<_> = TEXTS.iter().map(|text| plain(&*tokenizer, text)).collect();
    let results: Vec<_> = std::thread::scope(|scope| {
        let encode = || TEXTS.iter().map(|text| plain(&*tokenizer, text)).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(encode)).collect();
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    });
    for found in results {
        check(clause::ENCODE, "14 texts on four threads at the same time")
            .equal(found, Some(expected.clone()))?;
    }
    Ok(Outcome::Passed)
}
