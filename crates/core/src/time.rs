//! Times as people and protocols write them (RFC 3339).

/// A time, in milliseconds since 1970, as RFC 3339 in UTC, to the second.
#[must_use]
pub fn to_rfc3339(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of the year 0, in eras of 400 years (all years counted from March, so leap days come last).
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let part = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * part + 2) / 5 + 1;
    let month = if part < 10 { part + 3 } else { part - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{of_month:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// A time of RFC 3339, such as `2026-11-22T08:30:00Z`, in milliseconds since 1970: its whole seconds. `None` if it is none, or before.
#[must_use]
pub fn from_rfc3339(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let sign = |at: usize, signs: &[u8]| text.as_bytes().get(at).is_some_and(|b| signs.contains(b));
    if ![(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")].iter().all(|(at, s)| sign(*at, s.as_bytes()))
    {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    let offset = match zone {
        "Z" | "z" => 0,
        zone => {
            let (sign, time) = zone.split_at_checked(1)?;
            let (hours, minutes) = time.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            match sign {
                "+" => minutes,
                "-" => -minutes,
                _ => return None,
            }
        }
    };
    let days = days_since_1970(year, month, day);
    let seconds = ((days * 24 + hour) * 60 + minute - offset) * 60 + second;
    u64::try_from(seconds).ok()?.checked_mul(1_000)
}

/// The days from 1970-01-01 to a date of the Gregorian calendar.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // A year that begins in March has its odd day at its end.
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let era = year.div_euclid(400);
    let in_era = year.rem_euclid(400);
    era * 146_097 + in_era * 365 + in_era / 4 - in_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(to_rfc3339(seconds * 1_000), text);
            assert_eq!(from_rfc3339(text), Some(seconds * 1_000));
        }
    }

    #[test]
    fn other_ways_of_writing_are_read_and_nothing_else() {
        for (text, want) in [
            ("2026-11-22T08:30:00.123456789Z", Some(1_795_336_200)),
            ("2026-11-22T09:30:00+01:00", Some(1_795_336_200)),
            ("2026-11-22t08:00:00-00:30", Some(1_795_336_200)),
            ("2026-11-22T08:30:00", None),
            ("2026-13-22T08:30:00Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("never", None),
            ("", None),
            ("2026-11-22T+8:30:00Z", None),
        ] {
            assert_eq!(from_rfc3339(text), want.map(|seconds: u64| seconds * 1_000), "{text}");
        }
    }
}
