use proptest::prelude::{any, prop, prop_assert_eq, proptest};

use super::{Masker, Patterns, REPLACEMENT};

fn patterns(secrets: &[&str]) -> Patterns {
    Patterns::new(secrets.iter().copied()).unwrap()
}

fn in_pieces(patterns: &Patterns, pieces: &[&[u8]]) -> String {
    let mut masker = Masker::new(patterns.clone());
    let mut out = Vec::new();
    for piece in pieces {
        masker.push(piece, &mut out);
    }
    masker.finish(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_secret_cut_anywhere_is_hidden() {
    let patterns = patterns(&["hunter2secret", "abcdef"]);
    let text = b"say hunter2secret twice: hunter2secret, abcde abcdef.";
    let want = "say ***REDACTED*** twice: ***REDACTED***, abcde ***REDACTED***.";
    for first in 0..=text.len() {
        for second in first..=text.len() {
            let pieces: [&[u8]; 3] = [&text[..first], &text[first..second], &text[second..]];
            assert_eq!(in_pieces(&patterns, &pieces), want, "{first} {second}");
        }
    }
    let bytes: Vec<&[u8]> = text.chunks(1).collect();
    assert_eq!(in_pieces(&patterns, &bytes), want);
}

#[test]
fn overlapping_secrets_leave_no_letter() {
    let patterns = patterns(&["abcdef", "cdefgh"]);
    for cut in 0..=8 {
        let text = b"abcdefgh";
        assert_eq!(in_pieces(&patterns, &[&text[..cut], &text[cut..]]), REPLACEMENT);
    }
}

#[test]
fn usual_encodings_are_hidden() {
    let secret = "p@ss/wörd\"42";
    let patterns = patterns(&[secret]);
    let hidden = |text: &str| {
        let masked = patterns.mask(text);
        assert!(masked.contains(REPLACEMENT), "{text} -> {masked}");
    };
    hidden(secret);
    // base64 of "user:" + secret, "ab" + secret and secret alone.
    hidden("dXNlcjpwQHNzL3fDtnJkIjQy");
    hidden("YWJwQHNzL3fDtnJkIjQy");
    hidden("cEBzcy93w7ZyZCI0Mg==");
    hidden("p%40ss%2Fw%C3%B6rd%2242");
    hidden(r#"{"a":"p@ss/wörd\"42"}"#);
    hidden("704073732f77c3b6726422343 2".replace(' ', "").as_str());
}

#[test]
fn each_line_of_a_long_secret_is_hidden() {
    let patterns = patterns(&["-----BEGIN KEY-----\nMIIabcdefgh\nqwertyuiop\n"]);
    assert_eq!(patterns.mask("  qwertyuiop\r\n"), "  ***REDACTED***\r\n");
}

#[test]
fn short_and_blank_texts_are_left_alone() {
    let patterns = patterns(&["", "dev", "      ", "\n\n\n\n\n\n\n"]);
    let text = "dev      \n\n\n\n\n\n\n ok";
    assert_eq!(patterns.mask(text), text);
}

#[test]
fn text_flows_when_nothing_can_match() {
    let mut masker = Masker::new(patterns(&["hunter2secret"]));
    let mut out = Vec::new();
    masker.push(b"ready to serve", &mut out);
    assert_eq!(out, b"ready to serve");
}

proptest! {
    #[test]
    fn every_split_gives_the_same_text(
        text in "[abc]{0,60}",
        secrets in prop::collection::vec("[abc]{6,9}", 1..5),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let patterns = Patterns::new(secrets.iter().map(String::as_str)).unwrap();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        at.extend([0, text.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|w| &text.as_bytes()[w[0]..w[1]]).collect();
        // Independent of the masker: paint every occurrence, then write one mask per painted run of overlaps.
        let mut hidden: Vec<(usize, usize)> = secrets
            .iter()
            .flat_map(|secret| {
                let text = &text;
                (0..text.len())
                    .filter(move |at| text[*at..].starts_with(secret.as_str()))
                    .map(move |at| (at, at + secret.len()))
            })
            .collect();
        hidden.sort_unstable();
        let (mut want, mut shown) = (String::new(), 0);
        for (start, end) in hidden {
            if start >= shown {
                want.push_str(&text[shown..start]);
                want.push_str(REPLACEMENT);
            }
            shown = shown.max(end);
        }
        want.push_str(&text[shown..]);
        prop_assert_eq!(in_pieces(&patterns, &pieces), want);
    }
}
