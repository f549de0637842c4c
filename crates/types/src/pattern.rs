//! Patterns for the OpenAPI document: each matches exactly the texts that a parser takes.

/// Returns a pattern for the numbers from 1 to `most`, in digits without a leading zero.
pub(crate) fn one_to(most: u64) -> String {
    let number = most.to_string();
    let digits = number.as_bytes();
    let mut alternatives = Vec::new();
    if digits.len() > 1 {
        alternatives.push(format!("[1-9]{}", any_digits(0, digits.len() - 2)));
    }
    // Numbers of the same length that are smaller from one digit on, then the number itself.
    for (at, digit) in digits.iter().enumerate() {
        let least = if at == 0 { b'1' } else { b'0' };
        let rest = digits.len() - 1 - at;
        if *digit > least {
            let smaller = char_range(least, digit - 1);
            alternatives.push(format!("{}{smaller}{}", &number[..at], any_digits(rest, rest)));
        }
    }
    alternatives.push(number);
    format!("({})", alternatives.join("|"))
}

/// Returns a pattern for the numbers from 0 to `most` as the parsers of Rust read digits: leading zeros are allowed.
pub(crate) fn digits_to(most: u64) -> String {
    format!("0*(0|{})", one_to(most))
}

fn any_digits(least: usize, most: usize) -> String {
    match (least, most) {
        (0, 0) => String::new(),
        (1, 1) => "[0-9]".to_owned(),
        _ if least == most => format!("[0-9]{{{most}}}"),
        _ => format!("[0-9]{{{least},{most}}}"),
    }
}

fn char_range(first: u8, last: u8) -> String {
    let (first, last) = (char::from(first), char::from(last));
    if first == last { first.to_string() } else { format!("[{first}-{last}]") }
}

/// The control characters, for a class.
pub(crate) const CONTROL: &str = r"\u0000-\u001f\u007f-\u009f";
/// The white space of `str::trim` without control characters, for a class.
pub(crate) const SPACE: &str = r"\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";

#[cfg(test)]
pub(crate) mod tests {
    use proptest::{prelude::*, string::string_regex};
    use utoipa::PartialSchema;

    use super::*;
    use crate::{
        AttemptId, BlenderSeries, BlenderVersion, BlobHash, FrameSet, GpuUse, Name, Order, PropertyPath,
        RelPath, ShortName, TaskId, UploadId, WorkerId,
    };

    /// The pattern of a type in the document.
    fn pattern<T: PartialSchema>() -> String {
        let json = serde_json::to_value(T::schema()).unwrap();
        json["pattern"].as_str().unwrap().to_owned()
    }

    /// Texts that match it.
    fn texts(pattern: &str) -> impl Strategy<Value = String> {
        // The generator knows no anchors and looks ahead at nothing; and parts of paths are short, so that whole ones are.
        let inner = pattern.strip_prefix('^').unwrap().strip_suffix('$').unwrap();
        let inner = inner.replace("(?!0{16})", "").replace(",253}", ",4}").replace(",254}", ",4}");
        string_regex(&inner).unwrap()
    }

    #[test]
    fn numbers_have_no_gap_and_end_at_the_last() {
        assert_eq!(one_to(9), "([1-8]|9)");
        assert_eq!(one_to(64), "([1-9]|[1-5][0-9]|6[0-3]|64)");
        assert_eq!(one_to(1_048_574).matches('|').count(), 6);
        for most in [1, 9, 10, 64, 100, 999, 1000, 65535] {
            let pattern = one_to(most);
            let alternatives: Vec<&str> = pattern[1..pattern.len() - 1].split('|').collect();
            for number in 1..=most.min(2000) {
                let count = alternatives.iter().filter(|one| matches(one, &number.to_string())).count();
                assert_eq!(count, 1, "{number} and {pattern}");
            }
            for other in [0, most + 1, most * 10] {
                assert!(
                    !alternatives.iter().any(|one| matches(one, &other.to_string())),
                    "{other} {pattern}"
                );
            }
        }
    }

    /// Matches the parts of these patterns: digits, classes of digits, and counts.
    fn matches(pattern: &str, text: &str) -> bool {
        let (class, rest) = match pattern.strip_prefix('[') {
            Some(inner) => inner.split_once(']').unwrap(),
            None if pattern.is_empty() => return text.is_empty(),
            None => pattern.split_at(1),
        };
        let (count, rest) = match rest.strip_prefix('{') {
            Some(inner) => inner.split_once('}').unwrap(),
            None => ("1", rest),
        };
        let (least, most) = count.split_once(',').unwrap_or((count, count));
        let (first, last) = class.split_once('-').unwrap_or((class, class));
        let fits = |c: char| (first.parse().unwrap()..=last.parse().unwrap()).contains(&c);
        let run = text.chars().take_while(|c| fits(*c)).count().min(most.parse().unwrap());
        (least.parse().unwrap()..=run).any(|taken| matches(rest, &text[taken..]))
    }

    macro_rules! parses {
        ($($name:ident: $type:ty),+ $(,)?) => {
            proptest! {
                $(#[test]
                fn $name(text in texts(&pattern::<$type>())) {
                    let zero = text.bytes().all(|b| b == b'0');
                    prop_assert!(zero || text.parse::<$type>().is_ok(), "{text:?}");
                })+
            }
        };
    }

    parses!(
        attempts: AttemptId, tasks: TaskId, workers: WorkerId, uploads: UploadId, hashes: BlobHash,
        series: BlenderSeries, versions: BlenderVersion, gpus: GpuUse, orders: Order,
        properties: PropertyPath, names: Name, short_names: ShortName,
    );

    proptest! {
        // A few ranges are millions of frames.
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn frames(text in texts(&pattern::<FrameSet>())) {
            let some = text.split(',').take(3).collect::<Vec<_>>().join(",");
            prop_assert!(some.parse::<FrameSet>().is_ok(), "{some:?}");
        }
    }

    proptest! {
        #[test]
        fn paths(text in texts(&pattern::<RelPath>())) {
            prop_assert!(RelPath::new(&text).is_ok(), "{text:?}");
        }
    }
}
