//! Numbers of things in sentences.

/// Returns `1 frame` or `2 frames`.
pub fn count(number: impl Into<u64>, noun: &str) -> String {
    let number = number.into();
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        assert_eq!([0_u32, 1, 2].map(|number| count(number, "frame")), ["0 frames", "1 frame", "2 frames"]);
    }
}
