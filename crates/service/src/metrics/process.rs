//! The process's own metrics, read from `/proc` when someone asks; named as Prometheus's client libraries name them.
//! Where there is no `/proc` they are absent.

use std::fs;

use opentelemetry::metrics::Meter;

/// Units of `utime`, `stime` and `starttime` per second. The kernel always shows 100 to programs (`USER_HZ`), whatever
/// its own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// Registers the observable instruments; they live as long as the meter's provider.
pub(super) fn observe(meter: &Meter) {
    meter
        .u64_observable_gauge("process.resident_memory")
        .with_unit("By")
        .with_description("Resident memory of the process")
        .with_callback(|observer| {
            if let Some(bytes) = resident_bytes() {
                observer.observe(bytes, &[]);
            }
        })
        .build();
    meter
        .f64_observable_counter("process.cpu")
        .with_unit("s")
        .with_description("User and system time spent by the process")
        .with_callback(|observer| {
            if let Some(stat) = Stat::read() {
                observer.observe(stat.cpu_seconds, &[]);
            }
        })
        .build();
    meter
        .u64_observable_gauge("process.open_fds")
        .with_description("Open file descriptors")
        .with_callback(|observer| {
            if let Ok(entries) = fs::read_dir("/proc/self/fd") {
                observer.observe(entries.count() as u64, &[]);
            }
        })
        .build();
    meter
        .f64_observable_gauge("process.start_time")
        .with_unit("s")
        .with_description("Start of the process, in seconds since 1970")
        .with_callback(|observer| {
            if let Some((boot, stat)) = boot_time().zip(Stat::read()) {
                observer.observe(boot + stat.start_after_boot, &[]);
            }
        })
        .build();
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn boot_time() -> Option<f64> {
    fs::read_to_string("/proc/stat").ok()?.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()
}

/// The fields of `/proc/self/stat` in use here, in seconds.
struct Stat {
    cpu_seconds: f64,
    start_after_boot: f64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// proc(5) counts fields from 1; the second is the program's name in parentheses and may hold anything, so they are
    /// counted from the last closing one.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let seconds = |number: usize| -> Option<f64> {
            fields.get(number - 3)?.parse::<f64>().ok().map(|ticks| ticks / TICKS_PER_SECOND)
        };
        Some(Self { cpu_seconds: seconds(14)? + seconds(15)?, start_after_boot: seconds(22)? })
    }
}

#[cfg(test)]
mod tests {
    use super::Stat;

    #[test]
    fn a_program_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let line = "7 (a) b) c) S 1 1 1 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 1200 1000 20";
        let stat = Stat::parse(line).unwrap();
        assert!((stat.cpu_seconds - 3.0).abs() < 1e-9);
        assert!((stat.start_after_boot - 12.0).abs() < 1e-9);
    }
}
