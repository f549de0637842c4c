//! The quoting rules of systemd's unit files (systemd.service(5), systemd.syntax(7)).
//!
//! One line holds one setting. systemd splits it at blanks outside quotes, undoes C escapes, replaces `%` specifiers, and,
//! in command lines alone, `$` variables. Every function returns one line of printable text.

use std::fmt::Write as _;

/// Returns an argument of a command line as systemd reads it back.
pub fn argument(text: &str) -> String {
    quoted(text, true)
}

/// Returns a word of a setting other than a command line, where `$` has no meaning.
pub fn word(text: &str) -> String {
    quoted(text, false)
}

/// Returns the program of a command line; `None` if systemd refuses its path, however it is quoted. Variables have no meaning
/// there.
pub fn program(path: &str) -> Option<String> {
    let refused = |c: char| c.is_ascii_control() || "\"'\\".contains(c);
    (path.starts_with('/') && !path.contains(refused)).then(|| quoted(path, false))
}

fn quoted(text: &str, variables: bool) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_.,:=@+-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 8);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '%' => out.push_str("%%"),
            '$' if variables => out.push_str("$$"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Splits a line as systemd does (`extract_first_word` with C escapes, then specifiers, then `$$`), and demands that
    /// nothing in it is a specifier or a variable.
    pub fn read_back(line: &str, variables: bool) -> Vec<String> {
        let mut words = Vec::new();
        let mut chars = line.chars().peekable();
        loop {
            while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
            if chars.peek().is_none() {
                return words;
            }
            let mut word = String::new();
            let mut quote = None;
            while let Some(c) = chars.next() {
                match (quote, c) {
                    (None, c) if c.is_ascii_whitespace() => break,
                    (None, '"' | '\'') => quote = Some(c),
                    (Some(open), c) if c == open => quote = None,
                    (_, '\\') => word.push(match chars.next().unwrap() {
                        'n' => '\n',
                        't' => '\t',
                        'x' => {
                            let digits: String = chars.by_ref().take(2).collect();
                            let byte = u8::from_str_radix(&digits, 16).unwrap();
                            assert!(byte.is_ascii() && byte != 0, "{line}");
                            char::from(byte)
                        }
                        c @ ('"' | '\\') => c,
                        other => panic!("\\{other} is no escape of ours: {line}"),
                    }),
                    (_, c) => word.push(c),
                }
            }
            assert_eq!(quote, None, "a quote stays open: {line}");
            let word = halved(&word, '%');
            words.push(if variables { halved(&word, '$') } else { word });
        }
    }

    /// Replaces each pair of a sign by one of it; a single one is an error.
    fn halved(text: &str, sign: char) -> String {
        let mut out = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c == sign {
                assert_eq!(chars.next(), Some(sign), "a lone {sign} in {text}");
            }
            out.push(c);
        }
        out
    }

    #[test]
    fn plain_words_stay_plain() {
        for text in
            ["--listen", "0.0.0.0:8765", "/srv/kiln", "http://10.0.0.5:8765", "NAME=/mnt/x", "a@b,c+d"]
        {
            assert_eq!(argument(text), text);
        }
        assert_eq!(argument(""), "\"\"");
        assert_eq!(argument(";"), "\";\"", "alone it would end the command");
        assert_eq!(argument("100% of $HOME"), "\"100%% of $$HOME\"");
        assert_eq!(word("100% of $HOME"), "\"100%% of $HOME\"");
        assert_eq!(argument("a\nb\u{1}\"\\"), "\"a\\nb\\x01\\\"\\\\\"");
    }

    #[test]
    fn programs_that_systemd_refuses_are_known() {
        assert_eq!(program("/opt/my tools/100%/ki$ln"), Some("\"/opt/my tools/100%%/ki$ln\"".into()));
        for path in ["/a'b", "/a\"b", "/a\\b", "/a\nb", "/a\u{7f}b", "kiln", ""] {
            assert_eq!(program(path), None, "{path:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn arguments_are_read_back(
            words in prop::collection::vec("[\\x01-\\x7f]{0,8}|\\PC{0,8}|[ ;%$\"'\\\\{}a]{0,6}", 0..5),
        ) {
            let line = words.iter().map(|word| argument(word)).collect::<Vec<_>>().join(" ");
            prop_assert!(line.chars().all(|c| !c.is_ascii_control()), "one line: {line:?}");
            prop_assert_eq!(read_back(&line, true), words);
        }
    }
}
