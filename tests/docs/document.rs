//! [`Block`]s: the fenced parts of a document.

use regex::Regex;

/// A fenced part of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// What the fence says it is: `console`, `console figures`, `sh`, `text`.
    pub(crate) kind: String,
    /// Where it begins.
    pub(crate) line: usize,
    /// What is in it.
    pub(crate) text: String,
}

/// A command of a `console` block, and what it prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Example {
    pub(crate) command: String,
    /// `...` stands for anything in a line and, alone, for any lines.
    pub(crate) prints: Vec<String>,
    /// Said as `[exit 1]` at the end.
    pub(crate) exit: i32,
}

/// The blocks of a document.
pub(crate) fn blocks(document: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (line, text) in (1..).zip(document.lines()) {
        match text.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(kind) => {
                open = true;
                blocks.push(Block { kind: kind.to_owned(), line, text: String::new() });
            }
            None if open => blocks.last_mut().unwrap().text.extend([text, "\n"]),
            None => {}
        }
    }
    blocks
}

/// The commands of a `console` block.
pub(crate) fn examples(block: &Block) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    for line in block.text.lines() {
        let exit = line.strip_prefix("[exit ").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
        match (line.strip_prefix("$ "), examples.last_mut(), exit) {
            (Some(command), ..) => {
                examples.push(Example { command: command.to_owned(), prints: Vec::new(), exit: 0 });
            }
            (None, Some(example), Some(exit)) => example.exit = exit,
            (None, Some(example), None) => example.prints.push(line.to_owned()),
            (None, None, _) => panic!("line {}: output in front of a command", block.line),
        }
    }
    examples
}

/// What figures mean in documented output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figures {
    /// Themselves.
    Exact,
    /// Any others, as measured values do.
    Any,
}

/// Whether `printed` is what is documented. Columns may be of another width.
pub(crate) fn is_as_documented(documented: &[String], figures: Figures, printed: &str) -> bool {
    let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let figure = Regex::new("[0-9]+").unwrap();
    let line = |line: &String| match line.trim() {
        "..." => "(?:.*\n)*".to_owned(),
        line => {
            let line = regex::escape(&squeeze(line)).replace(r"\.\.\.", ".*") + "\n";
            match figures {
                Figures::Exact => line,
                Figures::Any => figure.replace_all(&line, "[0-9]+").into_owned(),
            }
        }
    };
    let pattern = format!("^{}$", documented.iter().map(line).collect::<String>());
    let printed: String = printed.lines().map(|line| format!("{}\n", squeeze(line))).collect();
    Regex::new(&pattern).unwrap().is_match(&printed)
}

#[test]
fn three_dots_stand_for_what_differs() {
    let documented = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let exact = |text: &str, printed: &str| is_as_documented(&documented(text), Figures::Exact, printed);
    assert!(exact("a ... c\n...\nz", "a b c\nd\n\ne\nz\n"));
    assert!(exact("...\nz", "z\n"));
    assert!(exact("A  B", " A B\n"));
    assert!(!exact("a ... c", "a b d\n"));
    assert!(!exact("a", "a\nb\n"));
}

#[test]
fn figures_stand_for_others_where_they_are_measured() {
    let any = |text: &str, printed: &str| is_as_documented(&[text.to_owned()], Figures::Any, printed);
    assert!(any("rtt 0.123 ms, 3 nodes", "rtt 12.4 ms, 3 nodes"));
    assert!(!any("rtt 0.123 ms", "rtt none ms"));
    assert!(!is_as_documented(&["1".to_owned()], Figures::Exact, "2"));
}
