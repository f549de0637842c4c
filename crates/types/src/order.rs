//! The order in which the tasks of a step are dispatched.

use std::{fmt, num::NonZeroU32, str::FromStr};

use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};

use crate::pattern::one_to;

/// The order in which the tasks of a step are dispatched. Prints and parses as one text: `sequential`, `reverse`,
/// `coarse`, `every-10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Order {
    #[default]
    Sequential,
    Reverse,
    /// The first, the last, the middle, then the middle of each gap, so that a mistake anywhere shows early.
    Coarse,
    /// Every Nth from the first, then the others in sequence: a rough video early, and the rest in one pass.
    Every(NonZeroU32),
}
crate::ids::text_serde!(Order);

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequential => f.pad("sequential"),
            Self::Reverse => f.pad("reverse"),
            Self::Coarse => f.pad("coarse"),
            Self::Every(nth) => f.pad(&format!("every-{nth}")),
        }
    }
}

/// A text that is not an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("“{0}” is no order; write sequential, reverse, coarse or every-N, such as every-10")]
pub struct BadOrder(String);

impl FromStr for Order {
    type Err = BadOrder;

    fn from_str(text: &str) -> Result<Self, BadOrder> {
        let every = || {
            // One text for each order: no sign, no leading zero.
            let number = text.strip_prefix("every-")?;
            number.starts_with(|first| matches!(first, '1'..='9')).then(|| number.parse().ok())?
        };
        match text {
            "sequential" => Ok(Self::Sequential),
            "reverse" => Ok(Self::Reverse),
            "coarse" => Ok(Self::Coarse),
            _ => every().map(Self::Every).ok_or_else(|| BadOrder(text.chars().take(40).collect())),
        }
    }
}

impl utoipa::PartialSchema for Order {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "The order in which the tasks of a step are dispatched: `sequential`, `reverse`, `coarse` (the \
                 first, the last, the middle, then the middle of each gap), or `every-N` (every Nth from the \
                 first, then those between as they come).",
            ))
            .pattern(Some(format!("^(sequential|reverse|coarse|every-{})$", one_to(u64::from(u32::MAX)))))
            .examples(["sequential", "coarse", "every-10"])
            .into()
    }
}

impl utoipa::ToSchema for Order {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_one_text_everywhere() {
        let every = |nth| Order::Every(NonZeroU32::new(nth).unwrap());
        let all = [
            (Order::Sequential, "sequential"),
            (Order::Reverse, "reverse"),
            (Order::Coarse, "coarse"),
            (every(1), "every-1"),
            (every(10), "every-10"),
            (every(u32::MAX), "every-4294967295"),
        ];
        for (order, text) in all {
            assert_eq!(order.to_string(), text);
            assert_eq!(text.parse(), Ok(order));
            let json = serde_json::to_string(&order).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Order>(&json).unwrap(), order);
        }
        assert_eq!(format!("{:>10}|{:<9}", Order::Coarse, every(7)), "    coarse|every-7  ");
    }

    #[test]
    fn what_is_no_order_is_told_what_is() {
        let bad = [
            "", "random", "Coarse", "preview", "every", "every-", "every-0", "every-01", "every-+5",
            "every--1",
        ];
        for bad in bad.into_iter().chain(["every-4294967296", "every-1.5", "every-10 ", "every-٣"]) {
            let error = bad.parse::<Order>().unwrap_err().to_string();
            assert!(error.contains("every-N"), "{error}");
        }
    }
}
