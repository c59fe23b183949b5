//! YAML with positions: a small tree in which every node knows its line and column, so that an error can
//! name the place. Built from `saphyr-parser`'s events, bounded in size, depth and alias expansion.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// The largest file that is read, in bytes.
pub const MAX_BYTES: usize = 256 * 1024;
const MAX_NODES: usize = 20_000;
const MAX_DEPTH: usize = 64;

/// A place in a file; both numbers count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// A value and where it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it starts.
    pub at: Position,
}

/// The kinds of value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A scalar; `plain` tells an unquoted one, which alone may be null, a number or a boolean.
    Scalar {
        /// The text.
        text: String,
        /// Whether it stood without quotes.
        plain: bool,
    },
    /// A sequence.
    Sequence(Vec<Node>),
    /// A mapping, in the order of the file. Keys are scalars and distinct.
    Mapping(Vec<(Node, Node)>),
}

/// Why a text is not acceptable YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where.
    pub at: Position,
    /// One sentence.
    pub message: String,
}

impl Node {
    /// The text of a scalar that is not null.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// Whether nothing (or `null`, `~`) was written.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The items of a sequence.
    #[must_use]
    pub fn items(&self) -> Option<&[Self]> {
        match &self.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a mapping.
    #[must_use]
    pub fn entries(&self) -> Option<&[(Self, Self)]> {
        match &self.value {
            Value::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of `key`, looking through merge keys (`<<`) as compose files use them.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        let entries = self.entries()?;
        entries.iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value).or_else(|| {
            let (_, merged) = entries.iter().find(|(name, _)| name.text() == Some("<<"))?;
            match merged.items() {
                Some(items) => items.iter().find_map(|item| item.get(key)),
                None => merged.get(key),
            }
        })
    }

    /// Where the value of a path such as `preview.expose[0].service` stands, or its nearest parent that is there.
    #[must_use]
    pub fn locate(&self, path: &str) -> Option<Position> {
        let mut node = self;
        for part in path.split(['.', '[']) {
            let next = match part.strip_suffix(']') {
                Some(index) => index.parse::<usize>().ok().and_then(|index| node.items()?.get(index)),
                None => node.get(part),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        Some(node.at)
    }

    /// What a reader would call it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.value {
            Value::Scalar { .. } => "a single value",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }
}

/// Parses the one document of `text`; `None` when the file holds nothing.
///
/// # Errors
/// The first place that is not YAML, or that breaks a bound: 256 KiB, 64 levels, 20,000 nodes after alias
/// expansion, one document, no duplicate or composite keys, no tags.
pub fn parse(text: &str) -> Result<Option<Node>, SyntaxError> {
    if text.len() > MAX_BYTES {
        let message = format!("the file is {} bytes; at most {MAX_BYTES} are read", text.len());
        return Err(SyntaxError { at: Position { line: 1, column: 1 }, message });
    }
    let mut builder = Builder { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    let mut root = None;
    while let Some((event, at)) = builder.next()? {
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            Event::StreamEnd => break,
            _ if root.is_some() => {
                return Err(error(at, "only one document is allowed in this file"));
            }
            event => root = Some(builder.node(event, at, 0)?),
        }
    }
    Ok(root.filter(|node| !node.is_null()))
}

struct Builder<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl<'t> Builder<'t> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Position)>, SyntaxError> {
        match self.parser.next() {
            None => Ok(None),
            Some(Ok((event, span))) => Ok(Some((event, position(span)))),
            Some(Err(scan)) => {
                let at = Position { line: scan.marker().line(), column: scan.marker().col() + 1 };
                Err(error(at, &format!("not valid YAML: {}", scan.info())))
            }
        }
    }

    fn node(&mut self, event: Event<'t>, at: Position, depth: usize) -> Result<Node, SyntaxError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(error(at, "too many values (aliases count each time they are used)"));
        }
        if depth > MAX_DEPTH {
            return Err(error(at, "nested too deeply"));
        }
        let before = self.nodes;
        let (value, anchor) = match event {
            Event::Alias(id) => {
                let (node, size) = self.anchors.get(&id).cloned().ok_or_else(|| error(at, "unknown alias"))?;
                self.nodes += size;
                if self.nodes > MAX_NODES {
                    return Err(error(at, "too many values (aliases count each time they are used)"));
                }
                return Ok(Node { value: node.value, at });
            }
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                return Err(error(at, "tags (`!…`) are not allowed"));
            }
            Event::Scalar(text, style, anchor, None) => {
                (Value::Scalar { text: text.into_owned(), plain: matches!(style, ScalarStyle::Plain) }, anchor)
            }
            Event::SequenceStart(anchor, None) => (Value::Sequence(self.sequence(depth)?), anchor),
            Event::MappingStart(anchor, None) => (Value::Mapping(self.mapping(depth)?), anchor),
            other => return Err(error(at, &format!("unexpected {other:?}"))),
        };
        let node = Node { value, at };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before + 1));
        }
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Node>, SyntaxError> {
        let mut items = Vec::new();
        while let Some((event, at)) = self.next()? {
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            items.push(self.node(event, at, depth + 1)?);
        }
        Ok(items)
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<(Node, Node)>, SyntaxError> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        while let Some((event, at)) = self.next()? {
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let key = self.node(event, at, depth + 1)?;
            let Value::Scalar { text, .. } = &key.value else {
                return Err(error(at, "a key must be a single value"));
            };
            if let Some(first) = seen.insert(text.clone(), at.line) {
                return Err(error(at, &format!("`{text}` is given twice (first in line {first})")));
            }
            let Some((event, at)) = self.next()? else {
                break;
            };
            let value = self.node(event, at, depth + 1)?;
            entries.push((key, value));
        }
        Ok(entries)
    }
}

fn position(span: Span) -> Position {
    Position { line: span.start.line(), column: span.start.col() + 1 }
}

fn error(at: Position, message: &str) -> SyntaxError {
    SyntaxError { at, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{Position, parse};

    #[test]
    fn nodes_know_their_line_and_column() {
        let root = parse("a: 1\nb:\n  - x\n  - {c: d}\n").unwrap().unwrap();
        assert_eq!(root.get("a").unwrap().at, Position { line: 1, column: 4 });
        let items = root.get("b").unwrap().items().unwrap();
        assert_eq!(items[0].at, Position { line: 3, column: 5 });
        assert_eq!(items[1].get("c").unwrap().at, Position { line: 4, column: 9 });
    }

    #[test]
    fn aliases_and_merge_keys_work_as_compose_files_use_them() {
        let root = parse("x: &base {image: a, tty: true}\ny: {<<: *base, image: b}\n").unwrap().unwrap();
        let y = root.get("y").unwrap();
        assert_eq!(y.get("image").unwrap().text(), Some("b"));
        assert_eq!(y.get("tty").unwrap().text(), Some("true"));
    }

    #[test]
    fn bombs_duplicates_tags_and_second_documents_are_refused_with_their_place() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let before = level - 1;
            bomb.push_str(&format!(
                "a{level}: &a{level} [*a{before}, *a{before}, *a{before}, *a{before}, *a{before}, *a{before}]\n"
            ));
        }
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let long = "a: b\n".repeat(60_000);
        for (text, part, line) in [
            (bomb.as_str(), "too many", 6),
            (deep.as_str(), "nested", 1),
            (long.as_str(), "bytes", 1),
            ("a: 1\na: 2\n", "twice (first in line 1)", 2),
            ("a: !!python/object x\n", "tags", 1),
            ("a: 1\n---\nb: 2\n", "one document", 3),
            ("a: [1\n", "not valid YAML", 2),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains(part), "{}", error.message);
            assert_eq!(error.at.line, line, "{part}");
        }
        assert_eq!(parse("# nothing\n").unwrap(), None);
    }
}
