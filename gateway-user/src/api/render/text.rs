//! Tables, labelled lines, times and sizes as the pages write them.

use std::fmt::Write;

use time::OffsetDateTime;

/// `Label:              value`.
pub(super) fn line(out: &mut String, label: &str, value: &str) {
    let colon = if label.is_empty() { ' ' } else { ':' };
    let _ = writeln!(out, "{:<20}{value}", format!("{label}{colon}"));
}

/// A line of a block below a heading, in `cphaprob`'s layout.
pub(super) fn fact(out: &mut String, label: &str, value: &str) {
    let _ = writeln!(out, "   {:<28}{value}", format!("{label}:"));
}

pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

/// Rows below their headings, each column as wide as its widest cell. A heading that begins with `>`
/// has its column to the right, as numbers are compared.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let heading = |i: usize| rows.first().and_then(|row| row.get(i));
    let right: Vec<bool> = (0..count)
        .map(|i| heading(i).is_some_and(|text| text.starts_with('>')))
        .collect();
    let shown = |number: usize, i: usize, cell: &str| {
        let marked = number == 0 && right[i];
        cell[usize::from(marked)..].to_owned()
    };
    let rows: Vec<Vec<String>> = rows
        .iter()
        .enumerate()
        .map(|(number, row)| {
            let cells = row.iter().enumerate();
            cells.map(|(i, cell)| shown(number, i, cell)).collect()
        })
        .collect();
    let widths: Vec<usize> = (0..count)
        .map(|i| {
            let cells = rows.iter().filter_map(|row| row.get(i));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths.iter().zip(&right))
            .map(|(cell, (width, right))| {
                if *right {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    out
}

/// [`columns`], or a word where there is nothing below the headings.
pub(super) fn table_or(rows: &[Vec<String>], nothing: &str) -> String {
    if rows.len() > 1 {
        columns(rows)
    } else {
        format!("{nothing}\n")
    }
}

pub(super) fn mode(mode: crate::config::Mode) -> &'static str {
    match mode {
        crate::config::Mode::Ha => "High Availability",
        crate::config::Mode::LoadSharing => "Load Sharing",
    }
}

/// A member's id; 0 is nobody.
pub(super) fn owner(member: u8) -> String {
    if member == 0 {
        "-".into()
    } else {
        member.to_string()
    }
}

pub(super) fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// "0.3s", "41.9s", "1h 2m 5s", "3d 4h": what is longer than a minute needs no tenths, what is longer
/// than a day no seconds.
pub(super) fn duration(seconds: f64) -> String {
    if seconds.is_nan() || seconds < 60.0 {
        return format!("{seconds:.1}s");
    }
    let whole = seconds as u64;
    let (days, hours) = (whole / 86_400, whole / 3600 % 24);
    let (minutes, rest) = (whole / 60 % 60, whole % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m {rest}s"),
        (0, _) => format!("{hours}h {minutes}m {rest}s"),
        _ => format!("{days}d {hours}h {minutes}m"),
    }
}

/// "312 bytes", "1.2 MiB".
pub(super) fn octets(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} bytes");
    }
    let mut value = count as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while value >= 1023.95
        && let Some(next) = units.next()
    {
        value /= 1024.0;
        unit = Some(next);
    }
    format!("{value:.1} {}", unit.unwrap_or(&"PiB"))
}

/// A moment in UTC, from seconds since 1970.
pub(super) fn moment(seconds: f64) -> String {
    moment_ms((seconds.max(0.0) * 1e3).round() as u64)
}

/// A moment in UTC, from milliseconds since 1970.
pub(super) fn moment_ms(unix_ms: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp((unix_ms / 1000).cast_signed());
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{} {:02}:{:02}:{:02}.{:03}Z",
        time.date(),
        time.hour(),
        time.minute(),
        time.second(),
        unix_ms % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![row(["ID", "Name"]), row(["1 (local)", "a"])];
        assert_eq!(columns(&rows), "ID         Name\n1 (local)  a\n");
        let rows = vec![row([">Lag", "Name"]), row(["1234", "Zürich"])];
        assert_eq!(columns(&rows), " Lag  Name\n1234  Zürich\n");
        assert_eq!(table_or(&rows[..1], "None"), "None\n");
    }

    #[test]
    fn times_and_sizes_are_short() {
        for (seconds, text) in [
            (0.04, "0.0s"),
            (59.94, "59.9s"),
            (60.0, "1m 0s"),
            (3725.9, "1h 2m 5s"),
            (90_061.0, "1d 1h 1m"),
        ] {
            assert_eq!(duration(seconds), text);
        }
        for (count, text) in [
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_310_720, "1.2 MiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(octets(count), text);
        }
        assert_eq!(moment(1_767_323_045.006), "2026-01-02 03:04:05.006Z");
    }
}
