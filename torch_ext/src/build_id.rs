//! Owns reading the build identifier that the linker writes into a shared library.
//!
//! Does not load the library.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where things stand in a 64-bit ELF file's header, and in each entry of its table of segments.
const SEGMENT_TABLE: usize = 0x20;
const SEGMENT_TABLE_ENTRY: usize = 0x36;
const SEGMENT_TABLE_LENGTH: usize = 0x38;
const HEADER: usize = 0x40;
const SEGMENT_OFFSET: usize = 0x08;
const SEGMENT_BYTES: usize = 0x20;
const SEGMENT: usize = 0x38;

/// The kind of a segment that holds notes.
const NOTES: u32 = 4;
/// The kind of note that is a build identifier, by the owner `GNU`.
const BUILD_ID: u32 = 3;
const OWNER: &[u8] = b"GNU\0";

/// Notes are a few dozen bytes; what claims to be more is no library of ours.
const MAX_NOTES: u64 = 1 << 16;

/// The build identifier in hexadecimal; nothing where the file is no 64-bit little-endian ELF file or
/// has none.
pub(crate) fn build_id(path: &Path) -> io::Result<Option<String>> {
    let file = File::open(path)?;
    let mut header = [0; HEADER];
    if file.read_exact_at(&mut header, 0).is_err() || header[..6] != *b"\x7fELF\x02\x01" {
        return Ok(None);
    }
    let entry = u64::from(u16_at(&header, SEGMENT_TABLE_ENTRY));
    for index in 0..u64::from(u16_at(&header, SEGMENT_TABLE_LENGTH)) {
        let mut segment = [0; SEGMENT];
        file.read_exact_at(&mut segment, u64_at(&header, SEGMENT_TABLE) + index * entry)?;
        let n_bytes = u64_at(&segment, SEGMENT_BYTES);
        if u32_at(&segment, 0) != NOTES || n_bytes > MAX_NOTES {
            continue;
        }
        let mut notes = vec![0; usize::try_from(n_bytes).expect("was checked")];
        file.read_exact_at(&mut notes, u64_at(&segment, SEGMENT_OFFSET))?;
        if let Some(id) = id_among(&notes) {
            let digits = id.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(u32::from);
            return Ok(digits.map(|digit| char::from_digit(digit, 16)).collect());
        }
    }
    Ok(None)
}

/// Each note is three numbers (length of the owner, of the content, kind), the owner and the content,
/// both filled up to four bytes.
fn id_among(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let (numbers, rest) = notes.split_at_checked(12)?;
        let owner_length = usize::try_from(u32_at(numbers, 0)).ok()?;
        let length = usize::try_from(u32_at(numbers, 4)).ok()?;
        let (owner, rest) = rest.split_at_checked(owner_length.next_multiple_of(4))?;
        let (content, rest) = rest.split_at_checked(length.next_multiple_of(4))?;
        if u32_at(numbers, 8) == BUILD_ID && owner == OWNER {
            return Some(&content[..length]);
        }
        notes = rest;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_stands_behind_other_notes() {
        let note = |kind: u8, owner: &[u8], content: &[u8]| {
            let mut bytes = Vec::new();
            let lengths = [owner.len(), content.len()].map(|length| u32::try_from(length).unwrap());
            for number in [lengths[0], lengths[1], u32::from(kind)] {
                bytes.extend(number.to_le_bytes());
            }
            for part in [owner, content] {
                bytes.extend(part);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            bytes
        };
        let other = [note(3, b"Go\0", b"no"), note(1, b"GNU\0", b"abi")].concat();
        let wanted = note(3, b"GNU\0", b"\x01\xab\xff");
        assert_eq!(id_among(&other), None);
        assert_eq!(id_among(&[&other[..], &wanted].concat()), Some(&b"\x01\xab\xff"[..]));
        assert_eq!(id_among(&wanted[..wanted.len() - 1]), None);
    }

    #[test]
    fn what_is_no_library_has_none() {
        // Tests run in their package's folder, which need not be where they were built.
        assert_eq!(build_id(Path::new("Cargo.toml")).unwrap(), None);
        assert!(build_id(Path::new("no_such_file")).is_err());
    }
}
