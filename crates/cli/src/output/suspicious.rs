//! Suspicious frames in words. They state facts only: a black frame may be the beginning of a fade.

use kiln_types::{FrameSet, NotFinite, Suspicion, SuspiciousFrames};

use super::text::count;

const NOT_FINITE: &str = "not numbers (NaN or infinite)";

/// Describes what is suspicious in one frame.
pub fn of_frame(frame: i32, suspicion: &Suspicion) -> String {
    match suspicion {
        Suspicion::Black => format!("frame {frame} is entirely black"),
        Suspicion::Transparent => format!("frame {frame} is entirely transparent"),
        Suspicion::BlankView { path } => {
            format!("frame {frame} is entirely black or transparent in one view, {path}")
        }
        Suspicion::NotFinite { pixels, path } => {
            not_finite(&NotFinite { frame, pixels: *pixels, path: path.clone() })
        }
    }
}

/// `frame 7 has 12 pixels that are not numbers (NaN or infinite)`.
fn not_finite(NotFinite { frame, pixels, path }: &NotFinite) -> String {
    let file = path.as_ref().map_or_else(String::new, |path| format!(" in {path}"));
    let are = if *pixels == 1 { "is" } else { "are" };
    let is = NOT_FINITE.strip_prefix("not numbers").filter(|_| *pixels == 1);
    let what = is.map_or_else(|| NOT_FINITE.to_owned(), |rest| format!("not a number{rest}"));
    format!("frame {frame} has {}{file} that {are} {what}", count(*pixels, "pixel"))
}

/// Describes what is suspicious in `total` frames, a line for each kind.
pub fn summary(suspicious: &SuspiciousFrames, total: u32) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |frames: &Option<FrameSet>, one: &str, many: &str| {
        lines.extend(frames.as_ref().map(|frames| match frames.len() {
            1 => format!("frame {frames} {one}"),
            all if all == total => format!("all {all} frames {many}"),
            some => format!("{some} frames {many}: {frames}"),
        }));
    };
    add(&suspicious.black, "is entirely black", "are entirely black");
    add(&suspicious.transparent, "is entirely transparent", "are entirely transparent");
    add(
        &suspicious.blank_view,
        "is entirely black or transparent in one view",
        "are entirely black or transparent in one view",
    );
    match (&suspicious.not_finite, &suspicious.most_not_finite) {
        (Some(frames), Some(most)) if frames.len() == 1 => lines.push(not_finite(most)),
        (Some(_), Some(most)) => {
            add(&suspicious.not_finite, "", &format!("have pixels that are {NOT_FINITE}"));
            if let Some(line) = lines.last_mut() {
                line.push_str(&format!("; the most, {}, has frame {}", most.pixels, most.frame));
            }
        }
        _ => {}
    }
    lines
}

#[cfg(test)]
mod tests {
    use kiln_types::RelPath;

    use super::*;

    fn black(frames: impl IntoIterator<Item = i32>) -> SuspiciousFrames {
        SuspiciousFrames::collect(frames.into_iter().map(|frame| (frame, vec![Suspicion::Black])))
    }

    fn wild(frames: &[(i32, u64)]) -> SuspiciousFrames {
        let what = |pixels| vec![Suspicion::NotFinite { pixels, path: None }];
        SuspiciousFrames::collect(frames.iter().map(|(frame, pixels)| (*frame, what(*pixels))))
    }

    #[test]
    fn frames_are_named_and_all_of_them_are_called_all() {
        assert_eq!(summary(&black([12]), 48), ["frame 12 is entirely black"]);
        assert_eq!(summary(&black([12, 40, 41]), 48), ["3 frames are entirely black: 12,40-41"]);
        assert_eq!(summary(&black(1..=48), 48), ["all 48 frames are entirely black"]);
        assert_eq!(summary(&black([5]), 1), ["frame 5 is entirely black"]);
        assert!(summary(&SuspiciousFrames::default(), 48).is_empty());
    }

    #[test]
    fn pixels_that_are_no_numbers_are_counted() {
        let one = "frame 7 has 12 pixels that are not numbers (NaN or infinite)";
        assert_eq!(summary(&wild(&[(7, 12)]), 48), [one]);
        assert_eq!(of_frame(7, &Suspicion::NotFinite { pixels: 12, path: None }), one);
        let path = Some(RelPath::new("mask/0007.exr").unwrap());
        assert_eq!(
            of_frame(7, &Suspicion::NotFinite { pixels: 1, path }),
            "frame 7 has 1 pixel in mask/0007.exr that is not a number (NaN or infinite)"
        );
        assert_eq!(
            summary(&wild(&[(7, 12), (9, 40)]), 48),
            ["2 frames have pixels that are not numbers (NaN or infinite): 7,9; the most, 40, has frame 9"]
        );
    }
}
