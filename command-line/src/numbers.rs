//! Numbers as the values of options, refused with the range that they must be of.

use std::any::TypeId;
use std::fmt::Display;
use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;

/// A number as an option takes it.
pub trait Number: Copy + PartialOrd + Display + Send + Sync + 'static {
    /// What it is called.
    const NAME: &'static str;

    /// The number that `text` is; none where it is not one, or not finite.
    fn of(text: &str) -> Option<Self>;
}

macro_rules! numbers {
    ($name:literal, $keep:expr, $($number:ty),+) => {
        $(impl Number for $number {
            const NAME: &'static str = $name;

            fn of(text: &str) -> Option<Self> {
                text.trim().parse().ok().filter($keep)
            }
        })+
    };
}
numbers!("a whole number", |_: &_| true, u8, u16, u32, u64, usize);
numbers!("a number", |number: &Self| number.is_finite(), f32, f64);

/// Reads numbers of a range: whatever else is given, below zero or too large, the error says the range.
pub fn within<T: Number>(
    range: impl RangeBounds<T> + Clone + Send + Sync + 'static,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = T::of(text).filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let shown = |bound: Bound<&T>| bound.map(T::to_string);
            expected(
                T::NAME,
                shown(range.start_bound()),
                shown(range.end_bound()),
            )
        })
    }
}

/// What a number of a range is called. One function for all types of numbers and ranges: programs have many.
fn expected(name: &str, low: Bound<String>, high: Bound<String>) -> String {
    use Bound::{Excluded, Included, Unbounded};
    let range = match (low, high) {
        (Included(low), Included(high)) => format!(" of {low} to {high}"),
        (Included(low), Excluded(high)) => format!(" of {low} or more and below {high}"),
        (Included(low), Unbounded) => format!(" of {low} or more"),
        (Excluded(low), Included(high)) => format!(" above {low} and at most {high}"),
        (Excluded(low), Excluded(high)) => format!(" above {low} and below {high}"),
        (Excluded(low), Unbounded) => format!(" above {low}"),
        (Unbounded, Included(high)) => format!(" of {high} or less"),
        (Unbounded, Excluded(high)) => format!(" below {high}"),
        (Unbounded, Unbounded) => String::new(),
    };
    format!("expected {name}{range}")
}

/// The range above `low`.
pub fn above<T>(low: T) -> (Bound<T>, Bound<T>) {
    (Bound::Excluded(low), Bound::Unbounded)
}

/// Shares above 0, of which 1 is all.
pub fn share() -> (Bound<f32>, Bound<f32>) {
    (Bound::Excluded(0.0), Bound::Included(1.0))
}

/// Reads a size in bytes such as `2GB`, `500MB` or `1000000`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let upper = text.trim().to_uppercase();
    let units = [
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("KB", 1000),
        ("B", 1),
        ("", 1),
    ];
    let (digits, unit) = units
        .iter()
        .find_map(|(ending, unit)| Some((upper.strip_suffix(ending)?, unit)))
        .expect("everything ends with nothing");
    let number: Option<f64> = digits.trim().parse().ok();
    match number.map(|number| number * *unit as f64) {
        Some(size) if size >= 1.0 && size.is_finite() => Ok(size as u64),
        _ => Err("expected a size such as 2GB or 500MB".into()),
    }
}

/// `command` with numbers below zero taken for values, so that an option answers with its range; not of paths, where
/// they would become files.
pub fn negative_numbers(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| {
            let value = arg.get_value_parser().type_id();
            match arg.get_action().takes_values() && value != TypeId::of::<PathBuf>() {
                true => arg.allow_negative_numbers(true),
                false => arg,
            }
        })
        .mut_subcommands(negative_numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_their_range_are_answered_with_it() {
        let share = within(0.0..=1.0_f64);
        assert_eq!(share("0.5"), Ok(0.5));
        for bad in ["-1", "nan", "inf", "1e400", "", "x", "1.0001", "-0.1"] {
            assert_eq!(share(bad).unwrap_err(), "expected a number of 0 to 1");
        }
        assert_eq!(
            within(above(0.0_f32))("0").unwrap_err(),
            "expected a number above 0"
        );
        let whole = within(1..=9_usize);
        for bad in ["0", "-1", "10", "1.5", "99999999999999999999999"] {
            assert_eq!(whole(bad).unwrap_err(), "expected a whole number of 1 to 9");
        }
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, size) in [
            ("2GB", 2_000_000_000),
            ("1.5 mb", 1_500_000),
            ("10", 10),
            ("7kB", 7000),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["", "GB", "-1GB", "0", "two"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
