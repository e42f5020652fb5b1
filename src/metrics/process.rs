//! What the operating system says of this process, by the names that Prometheus' own libraries give
//! it (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>). It is read
//! from Linux' `/proc`; elsewhere it is absent.

use std::fs;

use super::{
    families::{PROCESS_CPU, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT_MEMORY},
    values::Values,
};

/// Clock ticks a second in `/proc`: Linux shows 100 to programs on every architecture
/// (<https://man7.org/linux/man-pages/man7/time.7.html>).
const TICKS: f64 = 100.0;

/// Adds what there is.
pub(super) fn add_to(values: &mut Values) {
    let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let found = [
        (&PROCESS_CPU, cpu_seconds(&read("stat"))),
        (&PROCESS_RESIDENT_MEMORY, resident_bytes(&read("status"))),
        (&PROCESS_OPEN_FDS, open_files()),
        (&PROCESS_MAX_FDS, max_files(&read("limits"))),
    ];
    for (family, value) in found {
        if let Some(value) = value {
            values.add(family, &[], value);
        }
    }
}

/// The program's name stands in brackets and may hold anything; after it, `utime` and `stime` are
/// the twelfth and thirteenth.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kibibytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

/// Without the one that this look opens.
fn open_files() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(count.saturating_sub(1) as f64)
}

/// The soft limit; none where there is no limit.
fn max_files(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 90 0 0 0 250 50 0 0 20 0 3 0 1000 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds(""), None);
    }

    #[test]
    fn memory_and_limits_are_found_among_other_lines() {
        assert_eq!(
            resident_bytes("VmHWM:\t 9 kB\nVmRSS:\t    40 kB\n"),
            Some(40_960.0)
        );
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\n";
        assert_eq!(max_files(limits), Some(1024.0));
        assert_eq!(max_files("Max open files  unlimited unlimited files"), None);
    }
}
