//! Owns what the CPU says of itself: vendor, family, model, and whether it multiplies tiles.
//!
//! Does not know its clock, cores or name for people.

/// The numbers of the processor, of which MKL and oneDNN make their choices.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Processor {
    vendor: String,
    family: u32,
    model: u32,
    has_amx: bool,
}

impl Processor {
    /// Such as ` AuthenticAMD 25/17` or `+AMX GenuineIntel 6/143`.
    fn label(&self) -> String {
        let Self { vendor, family, model, has_amx } = self;
        format!("{} {vendor} {family}/{model}", if *has_amx { "+AMX" } else { "" })
    }

    /// From the registers ebx, edx, ecx of leaf 0, eax of leaf 1 and edx of leaf 7 (Intel SDM volume 2A
    /// and AMD APM volume 3, CPUID).
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "x86-64 alone has CPUID"))]
    fn of(vendor: [u32; 3], signature: u32, features: u32) -> Self {
        let bytes: Vec<u8> = vendor.into_iter().flat_map(u32::to_le_bytes).collect();
        let bits = |from: u32, count: u32| (signature >> from) & ((1 << count) - 1);
        let family = if bits(8, 4) == 0xf { 0xf + bits(20, 8) } else { bits(8, 4) };
        let has_wide_model = matches!(bits(8, 4), 0x6 | 0xf);
        let model = bits(4, 4) + if has_wide_model { bits(16, 4) << 4 } else { 0 };
        // AMX-BF16, AMX-TILE or AMX-INT8.
        let has_amx = features & (1 << 22 | 1 << 24 | 1 << 25) != 0;
        let vendor = String::from_utf8_lossy(&bytes).trim_matches([' ', '\0']).to_owned();
        Self { vendor, family, model, has_amx }
    }
}

/// This machine's.
#[cfg(target_arch = "x86_64")]
fn look() -> Processor {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let first = __cpuid(0);
    let features = if first.eax >= 7 { __cpuid_count(7, 0).edx } else { 0 };
    Processor::of([first.ebx, first.edx, first.ecx], __cpuid(1).eax, features)
}

/// [`Processor::label`] of this machine.
#[cfg(target_arch = "x86_64")]
pub(crate) fn label() -> String {
    look().label()
}

/// Nothing: the instruction set has no way to ask.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn label() -> String {
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_of_two_makers_are_told_apart_by_the_numbers_in_their_manuals() {
        let of = |vendor: &[u8; 12], signature, features| {
            let word = |at: usize| u32::from_le_bytes(vendor[at..at + 4].try_into().unwrap());
            Processor::of([word(0), word(4), word(8)], signature, features).label()
        };
        // Sapphire Rapids, Skylake-SP and Zen 4.
        assert_eq!(of(b"GenuineIntel", 0x0008_06f8, 1 << 24), "+AMX GenuineIntel 6/143");
        assert_eq!(of(b"GenuineIntel", 0x0005_0657, 0), " GenuineIntel 6/85");
        assert_eq!(of(b"AuthenticAMD", 0x00a1_0f11, 0), " AuthenticAMD 25/17");
    }

    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    #[test]
    fn the_numbers_are_those_that_the_kernel_tells() {
        let found = look();
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.split(':').next().unwrap().trim() == name);
            line.unwrap().split(':').nth(1).unwrap().trim().to_owned()
        };
        assert_eq!(found.vendor, value("vendor_id"));
        assert_eq!(found.family.to_string(), value("cpu family"));
        assert_eq!(found.model.to_string(), value("model"));
        assert_eq!(found.has_amx, text.contains(" amx_tile"));
    }
}
