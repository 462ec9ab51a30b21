//! Figures with an aim, one line each.

/// One line for a figure with an aim: `NAME: VALUE (aim AIM): pass`, or `FAIL`.
pub fn line(name: &str, value: &str, aim: &str, holds: bool) -> String {
    format!("{name}: {value} (aim {aim}): {}", if holds { "pass" } else { "FAIL" })
}

/// One line for a ratio that is to be at least `least`.
pub fn at_least(name: &str, details: &str, ratio: f64, least: f64) -> String {
    line(name, &format!("{details}, ratio {ratio:.2}"), &format!("at least {least:.2}"), ratio >= least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_whether_the_aim_is_reached() {
        assert_eq!(at_least("a", "1 and 2", 2.0, 2.0), "a: 1 and 2, ratio 2.00 (aim at least 2.00): pass");
        assert_eq!(line("b", "61 µs", "at most 60 µs", false), "b: 61 µs (aim at most 60 µs): FAIL");
    }
}
