//! `strftime_now`: dates in templates.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A time in UTC, split into fields.
struct Moment {
    year: i64,
    /// `1..=12`
    month: usize,
    /// `1..=31`
    day: i64,
    /// Days since 1 January, from 0.
    day_of_year: i64,
    /// Days since Sunday, from 0.
    weekday: usize,
    /// Seconds since midnight.
    second: i64,
}

impl Moment {
    fn new(time: SystemTime) -> Self {
        let seconds = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
        };
        let days = seconds.div_euclid(86_400);
        // The Gregorian calendar repeats after 400 years of 146,097 days. In years that begin in March, the
        // leap day is at the end, so that the month is a linear function of the day of the year: 153 days in
        // 5 months.
        let since_march_0000 = days + 719_468;
        let cycle = since_march_0000.div_euclid(146_097);
        let day_of_cycle = since_march_0000.rem_euclid(146_097);
        let year_of_cycle =
            (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
        let day_from_march = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
        let month_from_march = (5 * day_from_march + 2) / 153;
        let month = (month_from_march + 2) % 12 + 1;
        let year = cycle * 400 + year_of_cycle + i64::from(month <= 2);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let day_of_year =
            if month <= 2 { day_from_march - 306 } else { day_from_march + 59 + i64::from(leap) };
        Self {
            year,
            month: month as usize,
            day: day_from_march - (153 * month_from_march + 2) / 5 + 1,
            day_of_year,
            weekday: (days + 4).rem_euclid(7) as usize,
            second: seconds.rem_euclid(86_400),
        }
    }
}

/// Formats `time`, in UTC, like C's `strftime` in the C locale. The error is an unsupported conversion.
pub(super) fn strftime(format: &str, time: SystemTime) -> Result<String, char> {
    let moment = Moment::new(time);
    let mut out = String::new();
    format_into(format, &moment, &mut out)?;
    Ok(out)
}

fn format_into(format: &str, moment: &Moment, out: &mut String) -> Result<(), char> {
    let Moment { year, month, day, day_of_year, weekday, second } = *moment;
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let month_name = MONTHS.get(month - 1).copied().unwrap_or_default();
    let day_name = DAYS.get(weekday).copied().unwrap_or_default();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut conversion = chars.next().unwrap_or('%');
        // As in glibc: no padding.
        let padded = conversion != '-';
        if !padded {
            conversion = chars.next().unwrap_or('-');
        }
        let mut number = |value: i64, width: usize| {
            let width = if padded { width } else { 0 };
            // Writing to a String cannot fail.
            let _ = write!(out, "{value:0width$}");
        };
        match conversion {
            'Y' => number(year, 4),
            'y' => number(year.rem_euclid(100), 2),
            'C' => number(year.div_euclid(100), 2),
            'm' => number(month as i64, 2),
            'd' => number(day, 2),
            'j' => number(day_of_year + 1, 3),
            'H' => number(hour, 2),
            'I' => number((hour + 11) % 12 + 1, 2),
            'M' => number(minute, 2),
            'S' => number(second % 60, 2),
            'f' => number(0, 6),
            'w' => number(weekday as i64, 1),
            'u' => number((weekday as i64 + 6) % 7 + 1, 1),
            'e' if padded && day < 10 => format_into(" %-d", moment, out)?,
            'e' => number(day, 0),
            'B' => out.push_str(month_name),
            'b' | 'h' => out.push_str(month_name.get(..3).unwrap_or_default()),
            'A' => out.push_str(day_name),
            'a' => out.push_str(day_name.get(..3).unwrap_or_default()),
            'p' => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            'Z' => out.push_str("UTC"),
            'z' => out.push_str("+0000"),
            'F' => format_into("%Y-%m-%d", moment, out)?,
            'D' | 'x' => format_into("%m/%d/%y", moment, out)?,
            'T' | 'X' => format_into("%H:%M:%S", moment, out)?,
            'R' => format_into("%H:%M", moment, out)?,
            'c' => format_into("%a %b %e %H:%M:%S %Y", moment, out)?,
            'n' => out.push('\n'),
            't' => out.push('\t'),
            '%' => out.push('%'),
            unknown => return Err(unknown),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: i64, format: &str) -> String {
        let offset = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 { UNIX_EPOCH - offset } else { UNIX_EPOCH + offset };
        strftime(format, time).unwrap()
    }

    #[test]
    fn dates_are_right() {
        assert_eq!(at(0, "%c %j %u"), "Thu Jan  1 00:00:00 1970 001 4");
        assert_eq!(at(951_782_400, "%F %j %A"), "2000-02-29 060 Tuesday");
        assert_eq!(at(951_868_800, "%F %j"), "2000-03-01 061");
        assert_eq!(at(1_735_689_599, "%F %T %j"), "2024-12-31 23:59:59 366");
        assert_eq!(at(1_741_507_507, "%d %b %Y, %I:%M %p"), "09 Mar 2025, 08:05 AM");
        assert_eq!(
            at(1_741_507_507, "%-d %B %y %-H %e|%x|%X|%Z%z"),
            "9 March 25 8  9|03/09/25|08:05:07|UTC+0000"
        );
        assert_eq!(at(-1, "%F %T"), "1969-12-31 23:59:59");
        assert_eq!(at(-2_203_891_200, "%F"), "1900-03-01");
        assert_eq!(at(4_107_542_399, "%F"), "2100-02-28");
        assert_eq!(at(4_107_542_400, "%F"), "2100-03-01");
        assert_eq!(at(12 * 3600, "%I%p 100%% %"), "12PM 100% %");
        assert_eq!(at(0, "%I"), "12");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = (1969, 12, 31, 364, 3);
        for day in 0..60_000 {
            let m = Moment::new(UNIX_EPOCH + Duration::from_secs(day * 86_400));
            let now = (m.year, m.month as i64, m.day, m.day_of_year, m.weekday as i64);
            let same_month = now.1 == before.1 && now.2 == before.2 + 1;
            let next_month = now.2 == 1 && before.2 >= 28 && now.1 == before.1 % 12 + 1;
            assert!(same_month || next_month, "{before:?} {now:?}");
            let new_year = now.1 == 1 && now.2 == 1;
            assert_eq!(now.0, before.0 + i64::from(new_year));
            assert_eq!(now.3, if new_year { 0 } else { before.3 + 1 });
            assert_eq!(now.4, (before.4 + 1) % 7);
            before = now;
        }
    }

    #[test]
    fn strange_formats_and_times_do_no_harm() {
        assert_eq!(strftime("%Q", UNIX_EPOCH), Err('Q'));
        assert_eq!(strftime("%-", UNIX_EPOCH), Err('-'));
        at(i64::MAX / 2, "%c");
        at(-(i64::MAX / 4), "%c");
    }
}
