//! Untrusted text in comments.

/// Text for the middle of a paragraph: no markup, no HTML, no mention, no link, one line, at most `max` characters.
#[must_use]
pub fn escape(text: &str, max: usize) -> String {
    let mut out = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == max {
            out.push('…');
            break;
        }
        match c {
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '+' | '-' | '.' | '!' | '|' | '~' | '>'
            | ':' => {
                out.push('\\');
                out.push(c);
            }
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            // A zero-width space after the sign: it reads the same, calls nobody and refers to no issue. GitHub makes
            // these links after Markdown is done, so a backslash would not hinder it.
            '@' => out.push_str("@\u{200b}"),
            '#' => out.push_str("\\#\u{200b}"),
            // Formulas, likewise GitHub's own.
            '$' => out.push_str("&#36;"),
            c if is_hostile(c) => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Text as an inline code span, whatever back-ticks it holds (CommonMark 0.31, section 6.1).
#[must_use]
pub fn code(text: &str, max: usize) -> String {
    let text: String = text.chars().take(max).map(|c| if is_hostile(c) { ' ' } else { c }).collect();
    let fence = "`".repeat(longest_run(&text) + 1);
    if text.is_empty() { String::new() } else { format!("{fence} {text} {fence}") }
}

/// Text as a fenced block, whatever it holds: the last `max` characters.
#[must_use]
pub fn block(text: &str, max: usize) -> String {
    let skip = text.chars().count().saturating_sub(max);
    let text: String = text.chars().skip(skip).filter(|c| !is_hostile(*c) || matches!(c, '\n' | '\t')).collect();
    let fence = "`".repeat(longest_run(&text).max(2) + 1);
    format!("{fence}text\n{}\n{fence}", text.trim_end())
}

/// Control characters, and those that turn the direction of the text around them (Unicode's Bidi_Control).
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{block, code, escape};

    #[test]
    fn hostile_names_stay_text() {
        let branch = "$(reboot);\"'`<img src=x onerror=alert(1)>@org/team[x](http://evil)\n# big";
        let escaped = escape(branch, 200);
        for bad in ["<img", "@org", "[x](", "\n", " `"] {
            assert!(!escaped.contains(bad), "{bad} in {escaped}");
        }
        assert_eq!(escape("fixes #12 of a/b#3", 99), "fixes \\#\u{200b}12 of a/b\\#\u{200b}3");
        assert_eq!(escape("$x$ \u{202e}dlrow", 99), "&#36;x&#36;  dlrow");
        assert!(!code("a\u{202e}b", 9).contains('\u{202e}'));
        assert_eq!(code("a`b``c", 50), "``` a`b``c ```");
        assert_eq!(escape(&"x".repeat(500), 3), "xxx…");
    }

    #[test]
    fn a_log_cannot_leave_its_block() {
        let log = "line\n```\n<script>\n\u{1b}[31mred";
        let shown = block(log, 1000);
        assert!(shown.starts_with("````text\n") && shown.ends_with("\n````"), "{shown}");
        assert!(!shown.contains('\u{1b}'));
        assert!(block("abc", 2).contains("bc") && !block("abc", 2).contains("abc"));
    }
}
