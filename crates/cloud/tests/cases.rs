//! The table that remembers: each case of the contract is held by tests that exist, at every provider, or there is a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use stagely_cloud::contract::CASES;

const PROVIDERS: [&str; 5] = ["aws", "digitalocean", "hetzner", "qemu", "sim"];
const NUMBERS: u8 = 41;

/// What the table says of one number.
#[derive(Default)]
struct Row {
    name: String,
    /// By provider, or `all`.
    held: BTreeMap<String, Held>,
}

enum Held {
    By(Vec<String>),
    Not(String),
}

fn table() -> BTreeMap<u8, Row> {
    let mut rows = BTreeMap::<u8, Row>::new();
    let mut number = 0;
    for line in include_str!("cases.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (first, rest) = line.split_once(' ').unwrap_or_else(|| panic!("what is {line:?}?"));
        if let Ok(next) = first.parse() {
            number = next;
            let row = Row { name: rest.to_owned(), ..Row::default() };
            assert!(rows.insert(number, row).is_none(), "{number} is there twice");
            continue;
        }
        assert!(first == "all" || PROVIDERS.contains(&first), "{first} is no provider");
        let held = match rest.strip_prefix("- ") {
            Some(reason) => Held::Not(reason.to_owned()),
            None => Held::By(rest.split(' ').map(str::to_owned).collect()),
        };
        let row = rows.get_mut(&number).expect("a number before a provider");
        assert!(row.held.insert(first.to_owned(), held).is_none(), "{number}: {first} is there twice");
    }
    rows
}

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether the file has a test of this name.
fn exists(named: &str) -> bool {
    let Some((file, test)) = named.rsplit_once("::") else { return false };
    let files = [crates().join("cloud/tests").join(file), crates().join(file)];
    let text = files.iter().find_map(|file| {
        // A module of a directory may be its `mod.rs`.
        let candidates = [file.with_extension("rs"), file.join("mod.rs")];
        candidates.iter().find_map(|file| std::fs::read_to_string(file).ok())
    });
    let mut is_test = false;
    for line in text.unwrap_or_default().lines().map(str::trim_start) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some(name) = name {
            if is_test && name.strip_prefix(test).is_some_and(|rest| rest.starts_with('(')) {
                return true;
            }
            is_test = false;
        }
    }
    false
}

/// The numbers that a provider's run of the suite spares, as its test says, and whether there is such a test.
fn spared(provider: &str) -> BTreeSet<u8> {
    let files = [format!("{provider}/mod.rs"), format!("{provider}.rs")];
    let text = files.iter().find_map(|file| std::fs::read_to_string(crates().join("cloud/tests").join(file)).ok());
    let text = text.unwrap_or_else(|| panic!("{provider} has no tests"));
    let (_, after) = text.split_once("contract::keeps(").unwrap_or_else(|| panic!("{provider} runs no suite"));
    let (_, list) = after.split_once("&[").expect("the numbers that are not asked");
    let (list, _) = list.split_once(']').expect("the end of the numbers");
    list.split(',').filter_map(|number| number.trim().parse().ok()).collect()
}

#[test]
fn every_case_is_held_at_every_provider_by_a_test_that_exists_or_has_a_reason() {
    let rows = table();
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), (1..=NUMBERS).collect::<Vec<_>>());
    let suite: BTreeSet<u8> = CASES.iter().map(|case| case.number).collect();
    let mut wrong = Vec::new();
    for (number, row) in &rows {
        for (provider, held) in &row.held {
            let Held::By(tests) = held else { continue };
            for test in tests {
                let is_there = match &**test {
                    "suite" => provider != "all" && suite.contains(number) && !spared(provider).contains(number),
                    test => exists(test),
                };
                if !is_there {
                    wrong.push(format!("{number} {provider}: there is no test {test}"));
                }
            }
        }
        for provider in
            PROVIDERS.iter().filter(|provider| !row.held.contains_key("all") && !row.held.contains_key(**provider))
        {
            wrong.push(format!("{number} {provider}: neither a test nor a reason"));
        }
        for provider in PROVIDERS.iter().filter(|_| suite.contains(number)) {
            // What the suite asks is said, so that the table shows it.
            let says =
                matches!(row.held.get(*provider), Some(Held::By(tests)) if tests.iter().any(|test| test == "suite"));
            if says == spared(provider).contains(number) {
                wrong.push(format!(
                    "{number} {provider}: the suite asks it, or spares it, and the table says otherwise"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{}", shown(&rows));
}

/// The table in short: who holds what, and what nobody can hold.
fn shown(rows: &BTreeMap<u8, Row>) -> String {
    let mut lines = vec![format!("    {}", PROVIDERS.map(|provider| format!("{provider:<13}")).concat())];
    let mut sums = [0; PROVIDERS.len()];
    for (number, row) in rows {
        let above = usize::from(row.held.get("all").is_some_and(|held| matches!(held, Held::By(_))));
        let mut words = String::new();
        for (provider, sum) in PROVIDERS.iter().zip(&mut sums) {
            let word = match row.held.get(*provider) {
                Some(Held::By(tests)) => format!("{} tests", tests.len() + above),
                _ if above > 0 => "above it".to_owned(),
                _ => "-".to_owned(),
            };
            *sum += usize::from(word != "-");
            words += &format!("{word:<13}");
        }
        lines.push(format!("{number:>2}  {words}{}", row.name));
    }
    lines.push(format!("    {}", sums.map(|sum| format!("{:<13}", format!("{sum} of {NUMBERS}"))).concat()));
    for (number, row) in rows {
        for (provider, held) in &row.held {
            if let Held::Not(reason) = held {
                lines.push(format!("{number:>2}  {provider}: {reason}"));
            }
        }
    }
    lines.join("\n")
}
