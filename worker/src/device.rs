//! What this machine offers: cores, memory, names.
//!
//! It asks the operating system only; what libtorch sees is `compute_device`'s to say.

use std::num::NonZeroU32;
use std::path::Path;

/// What a machine offers to its slots.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Machine {
    /// The host name.
    pub hostname: String,
    /// Cores this process may use.
    pub n_cores: u32,
    /// Memory this process may use, in bytes; 0 when it cannot be found out.
    pub memory_bytes: u64,
    /// The processor's name, empty when it cannot be found out.
    pub cpu_name: String,
}

impl Machine {
    /// This machine.
    pub fn look() -> Self {
        Self {
            hostname: hostname(),
            n_cores: n_cores(),
            memory_bytes: memory_bytes(),
            cpu_name: read("/proc/cpuinfo").and_then(|text| cpu_name(&text)).unwrap_or_default(),
        }
    }
}

/// Cores this process may use; the scheduler's affinity and the group's quota count.
pub fn n_cores() -> u32 {
    let n_cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(n_cores).unwrap_or(u32::MAX)
}

/// A name that no other process ever has, as far as chance goes.
///
/// # Errors
/// When the system gives no random numbers.
pub fn random_name() -> std::io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid").map(|text| text.trim().to_owned())
}

/// The host name, or `worker` on a machine that does not tell.
pub fn hostname() -> String {
    read("/proc/sys/kernel/hostname")
        .map(|text| text.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "worker".to_owned())
}

/// Memory this process may use, in bytes: the machine's, or its control group's if that is less.
pub fn memory_bytes() -> u64 {
    let machine = read("/proc/meminfo").and_then(|text| total_memory(&text)).unwrap_or(0);
    let group = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse().ok());
    group.map_or(machine, |limit: u64| limit.min(machine))
}

/// Memory of this process that is in RAM, in bytes: now, and the most since
/// [`forget_peak_resident`]; nothing when the kernel does not tell.
pub fn resident_bytes() -> Option<(u64, u64)> {
    let text = read("/proc/self/status")?;
    let bytes = |name| counter(&text, name).map(|kibibytes| kibibytes * 1024);
    Some((bytes("VmRSS:")?, bytes("VmHWM:")?))
}

/// Lets the peak of this process's memory begin at what is in RAM now. Where the kernel does not let
/// a process do so (`clear_refs`, 5), the peak stays that of its whole life.
pub fn forget_peak_resident() {
    drop(std::fs::write("/proc/self/clear_refs", "5"));
}

/// How often the kernel has killed a process for memory, as far as it can be seen from here: the
/// machine's count plus that of this process's control group. Best effort: only its growth means
/// anything.
pub fn n_memory_kills() -> u64 {
    let machine = read("/proc/vmstat").and_then(|text| counter(&text, "oom_kill"));
    let group = read("/proc/self/cgroup")
        .and_then(|text| text.lines().find_map(|l| l.strip_prefix("0::/").map(str::to_owned)))
        .and_then(|group| {
            let path = Path::new("/sys/fs/cgroup").join(group).join("memory.events");
            std::fs::read_to_string(path).ok()
        })
        .and_then(|text| counter(&text, "oom_kill"));
    machine.unwrap_or(0) + group.unwrap_or(0)
}

/// How the cores are divided: at least one thread for each slot.
pub fn threads_per_slot(n_cores: u32, n_slots: NonZeroU32) -> NonZeroU32 {
    NonZeroU32::new(n_cores / n_slots).unwrap_or(NonZeroU32::MIN)
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn cpu_name(cpuinfo: &str) -> Option<String> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    })
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        if words.next()? == name { words.next()?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let meminfo = "MemTotal:       24576 kB\nMemFree:  1 kB\n";
        assert_eq!(total_memory(meminfo), Some(24576 * 1024));
        assert_eq!(cpu_name("processor\t: 0\nmodel name\t: A B\n").as_deref(), Some("A B"));
        assert_eq!(counter("low 0\noom 3\noom_kill 2\n", "oom_kill"), Some(2));
        assert_eq!(counter("low 0\n", "oom_kill"), None);
        assert_eq!(counter("VmHWM:\t   9 kB\nVmRSS:\t   7 kB\n", "VmRSS:"), Some(7));
        let (now, peak) = resident_bytes().unwrap();
        assert!(now > 1 << 20 && peak >= now);
    }

    #[test]
    fn a_machine_with_more_slots_than_cores_still_gives_one_thread() {
        let slots = |n| NonZeroU32::new(n).unwrap();
        assert_eq!(threads_per_slot(2, slots(2)).get(), 1);
        assert_eq!(threads_per_slot(2, slots(3)).get(), 1);
        assert_eq!(threads_per_slot(8, slots(2)).get(), 4);
    }
}
