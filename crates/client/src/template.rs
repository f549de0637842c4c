//! Path templates: variables such as `{scene_name}` in an output path, which Blender knows from 4.5 on.
//! `blender/kiln_host/templates.py` has the same rules.

/// The value of a variable.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TemplateValue {
    /// Text, as it is in the path.
    Text(String),
    Whole(u32),
    Number(f64),
}

/// The reason why Blender would not write to a path: a fragment of a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadTemplate {
    #[error("it has a }} without a {{ before it")]
    Unopened,
    #[error("the brace of {0} is not closed")]
    Unclosed(String),
    #[error("{0} is not a variable that Blender knows")]
    Unknown(String),
    #[error("{{{0}}} is a text, which cannot have a number format")]
    FormOfText(String),
    #[error("{{{0}}} is not a number format; write ### or ##.##")]
    Form(String),
}

/// The most digits of a number format.
const MOST_DIGITS: usize = 255;

/// Returns the path that Blender makes of a template.
pub(crate) fn expand(
    text: &str,
    value: impl Fn(&str) -> Option<TemplateValue>,
) -> Result<String, BadTemplate> {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        done.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            done.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err(BadTemplate::Unopened);
        }
        let end = rest.find(['{', '}']);
        let Some(end) = end.filter(|end| rest[*end..].starts_with('}')) else {
            return Err(BadTemplate::Unclosed(format!("{{{}", &rest[..end.unwrap_or(rest.len())])));
        };
        done.push_str(&expression(&rest[..end], &value)?);
        rest = &rest[end + 1..];
    }
    done.push_str(rest);
    Ok(done)
}

/// The format of a number: the digits before and after the point.
#[derive(Clone, Copy)]
struct Form {
    whole: usize,
    after: usize,
}

fn expression(text: &str, value: impl Fn(&str) -> Option<TemplateValue>) -> Result<String, BadTemplate> {
    let (name, form) = text.split_once(':').map_or((text, None), |(name, form)| (name, Some(form)));
    let form = form.map(|form| parse(form).ok_or_else(|| BadTemplate::Form(text.to_owned()))).transpose()?;
    let value = value(name).ok_or_else(|| BadTemplate::Unknown(format!("{{{name}}}")))?;
    Ok(match (value, form) {
        (TemplateValue::Text(text), None) => text,
        (TemplateValue::Text(_), Some(_)) => return Err(BadTemplate::FormOfText(name.to_owned())),
        (TemplateValue::Whole(whole), None) => whole.to_string(),
        (TemplateValue::Whole(whole), Some(form)) => padded(i64::from(whole), form),
        (TemplateValue::Number(number), None) => plain(number),
        (TemplateValue::Number(number), Some(Form { whole, after: 0 })) => {
            // A half is rounded away from zero; rates are far below the limit.
            padded(number.round() as i64, Form { whole, after: 0 })
        }
        (TemplateValue::Number(number), Some(Form { whole: 0, after })) => format!("{number:.after$}"),
        (TemplateValue::Number(number), Some(Form { whole, after })) => {
            format!("{number:0width$.after$}", width = whole + after + 1)
        }
    })
}

fn parse(form: &str) -> Option<Form> {
    let (whole, after) = form.split_once('.').map_or((form, None), |(whole, after)| (whole, Some(after)));
    let all = |digits: &str| digits.len() <= MOST_DIGITS && digits.bytes().all(|byte| byte == b'#');
    let fits = all(whole) && after.is_none_or(|after| all(after) && !after.is_empty());
    let form = Form { whole: whole.len(), after: after.map_or(0, str::len) };
    (fits && form.whole + form.after > 0).then_some(form)
}

fn padded(whole: i64, form: Form) -> String {
    let number = format!("{whole:0width$}", width = form.whole);
    if form.after == 0 { number } else { format!("{number}.{:0<after$}", "", after = form.after) }
}

/// Returns the shortest text of a number, as Python writes it.
fn plain(number: f64) -> String {
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{number:e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, power) = power.strip_prefix('-').map_or(("+", power), |power| ("-", power));
        return format!("{digits}e{sign}{power:0>2}");
    }
    format!("{number:?}")
}

/// Returns the name of a datablock in a path: characters that a file name cannot have are replaced.
pub(crate) fn safe(name: &str) -> String {
    let replaced =
        |c: char| matches!(c, '\u{1}'..='\u{1f}' | '/' | '\\' | '?' | '*' | ':' | '|' | '"' | '<' | '>');
    let mut name: String = name.chars().map(|c| if replaced(c) { '_' } else { c }).collect();
    if !name.is_empty() && name.bytes().all(|byte| byte == b'.') {
        name.replace_range(..1, "_");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Option<TemplateValue> {
        Some(match name {
            "fps" => TemplateValue::Number(30.0 / f64::from(1.001_f32)),
            "even" => TemplateValue::Number(24.0),
            "half" => TemplateValue::Number(2.5),
            "width" => TemplateValue::Whole(1920),
            "scene" => TemplateValue::Text("Shot".to_owned()),
            _ => return None,
        })
    }

    fn of(text: &str) -> Result<String, BadTemplate> {
        expand(text, value)
    }

    #[test]
    fn values_and_their_forms() {
        for (text, expected) in [
            ("//a/b_", "//a/b_"),
            ("//{scene}/{scene}_##", "//Shot/Shot_##"),
            ("{even}", "24.0"),
            ("{even:###}", "024"),
            ("{half:#}", "3"),
            ("{fps:.##}", "29.97"),
            ("{fps:####.##}", "0029.97"),
            ("{width}", "1920"),
            ("{width:######}", "001920"),
            ("{width:#.##}", "1920.00"),
            ("{width:.#}", "1920.0"),
            ("{{scene}}", "{scene}"),
            ("{{{scene}}}", "{Shot}"),
            ("}}{{", "}{"),
        ] {
            assert_eq!(of(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_blender_does_not_write_to() {
        for text in [
            "{nope}",
            "{}",
            "{ scene}",
            "{scene",
            "{scene{",
            "a}",
            "{scene}}",
            "{scene:##}",
            "{even:}",
            "{even:a}",
            "{even:##.}",
            "{even:.}",
            "{even:#.#.#}",
            "{",
        ] {
            assert!(of(text).is_err(), "{text}");
        }
        let long = format!("{{even:{}}}", "#".repeat(MOST_DIGITS + 1));
        assert!(of(&long).is_err());
    }

    #[test]
    fn numbers_as_python_writes_them() {
        for (number, expected) in [
            (24.0, "24.0"),
            (0.5, "0.5"),
            (1e-5, "1e-05"),
            (2.5e20, "2.5e+20"),
            (1e-4, "0.0001"),
            (0.0, "0.0"),
        ] {
            assert_eq!(plain(number), expected);
        }
    }

    #[test]
    fn names_that_no_file_can_have() {
        assert_eq!(safe("a/b\\c:d\"<e>|?*\n"), "a_b_c_d__e_____");
        assert_eq!((safe(".."), safe("..a"), safe("")), ("_.".to_owned(), "..a".to_owned(), String::new()));
    }
}
