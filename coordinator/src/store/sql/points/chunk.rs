//! Points of one series as bytes and back, bit for bit: two columns, steps and values.
//!
//! It knows no database. What is in which chunk is `super::series`'.

use pco::ChunkConfig;
use pco::data_types::Number;
use pco::errors::PcoError;
use pco::standalone::{simple_compress, simple_decompress};

/// One point: the step and the value, absent where it was not finite.
pub(in crate::store::sql) type Point = (i64, Option<f64>);

/// The columns as they are, for points that are soon packed with others: compressing a few costs
/// more than it saves.
const PLAIN: u8 = 0;

/// Compressed columns whose values are all those of 32-bit floats, as trainers compute them.
const PACKED_F32: u8 = 1;

/// Compressed columns of 64-bit floats.
const PACKED_F64: u8 = 2;

/// A step and a value as they are.
const PLAIN_BYTES: usize = 16;

/// Bytes of the checksum at the end: a flipped bit must be an error, never another number.
const CHECKSUM_BYTES: usize = 8;

/// Why bytes are no chunk.
#[derive(Debug, thiserror::Error)]
pub(in crate::store::sql) enum ChunkError {
    #[error("a chunk of points could not be compressed")]
    Compress(#[source] PcoError),
    #[error("a chunk of points could not be decompressed")]
    Decompress(#[source] PcoError),
    #[error("a chunk of points is damaged: its checksum does not match")]
    Checksum,
    #[error("a chunk of points is of the unknown kind {kind}")]
    Kind { kind: u8 },
    #[error("a chunk of points is cut off or has {n_steps} steps and {n_values} values")]
    Length { n_steps: usize, n_values: usize },
}

/// The points as they are.
pub(super) fn plain(points: &[Point]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + points.len() * PLAIN_BYTES + CHECKSUM_BYTES);
    bytes.push(PLAIN);
    for (step, value) in points {
        bytes.extend_from_slice(&step.to_le_bytes());
        bytes.extend_from_slice(&value.unwrap_or(f64::NAN).to_le_bytes());
    }
    sealed(bytes)
}

/// The points compressed, without loss. Their steps grow.
pub(super) fn pack(points: &[Point]) -> Result<Vec<u8>, ChunkError> {
    let steps: Vec<i64> = points.iter().map(|(step, _)| *step).collect();
    let (kind, values) = if let Some(narrow) = narrow(points) {
        (PACKED_F32, compress(&narrow)?)
    } else {
        let wide: Vec<f64> = points.iter().map(|(_, value)| value.unwrap_or(f64::NAN)).collect();
        (PACKED_F64, compress(&wide)?)
    };
    let steps = compress(&steps)?;
    let mut bytes = Vec::with_capacity(5 + steps.len() + values.len() + CHECKSUM_BYTES);
    bytes.push(kind);
    let n_step_bytes = u32::try_from(steps.len()).expect("a chunk is far below 4 GiB");
    bytes.extend_from_slice(&n_step_bytes.to_le_bytes());
    bytes.extend_from_slice(&steps);
    bytes.extend_from_slice(&values);
    Ok(sealed(bytes))
}

/// The points of a chunk, as they were given.
pub(in crate::store::sql) fn unpack(bytes: &[u8]) -> Result<Vec<Point>, ChunkError> {
    let cut_off = ChunkError::Length { n_steps: 0, n_values: 0 };
    let n_content = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(cut_off)?;
    let (content, sum) = bytes.split_at(n_content);
    if sum != checksum(content) {
        return Err(ChunkError::Checksum);
    }
    let (kind, columns) =
        content.split_first().ok_or(ChunkError::Length { n_steps: 0, n_values: 0 })?;
    match *kind {
        PLAIN => unpack_plain(columns),
        PACKED_F32 => unpack_columns::<f32>(columns),
        PACKED_F64 => unpack_columns::<f64>(columns),
        kind => Err(ChunkError::Kind { kind }),
    }
}

/// The values as 32-bit floats, if every one is exactly that.
#[expect(clippy::cast_possible_truncation, reason = "what does not come back is not taken")]
fn narrow(points: &[Point]) -> Option<Vec<f32>> {
    points
        .iter()
        .map(|(_, value)| match value {
            Some(value) => {
                let narrow = *value as f32;
                (f64::from(narrow).to_bits() == value.to_bits()).then_some(narrow)
            }
            None => Some(f32::NAN),
        })
        .collect()
}

fn compress<T: Number>(numbers: &[T]) -> Result<Vec<u8>, ChunkError> {
    simple_compress(numbers, &ChunkConfig::default()).map_err(ChunkError::Compress)
}

fn unpack_plain(columns: &[u8]) -> Result<Vec<Point>, ChunkError> {
    let (pairs, rest) = columns.as_chunks::<PLAIN_BYTES>();
    if !rest.is_empty() {
        return Err(ChunkError::Length { n_steps: pairs.len(), n_values: pairs.len() });
    }
    let point = |pair: &[u8; PLAIN_BYTES]| {
        let [step, value] = pair.as_chunks::<8>().0 else { unreachable!("sixteen bytes are two") };
        (i64::from_le_bytes(*step), finite(f64::from_le_bytes(*value)))
    };
    Ok(pairs.iter().map(point).collect())
}

fn unpack_columns<T: Number + Into<f64>>(columns: &[u8]) -> Result<Vec<Point>, ChunkError> {
    let cut_off = || ChunkError::Length { n_steps: 0, n_values: 0 };
    let (n_step_bytes, columns) = columns.split_first_chunk::<4>().ok_or_else(cut_off)?;
    let n_step_bytes = usize::try_from(u32::from_le_bytes(*n_step_bytes)).map_err(|_| cut_off())?;
    let (steps, values) = columns.split_at_checked(n_step_bytes).ok_or_else(cut_off)?;
    let steps: Vec<i64> = simple_decompress(steps).map_err(ChunkError::Decompress)?;
    let values: Vec<T> = simple_decompress(values).map_err(ChunkError::Decompress)?;
    if steps.len() != values.len() {
        return Err(ChunkError::Length { n_steps: steps.len(), n_values: values.len() });
    }
    Ok(steps.into_iter().zip(values.into_iter().map(|value| finite(value.into()))).collect())
}

/// What stands for an absent value is not finite, and nothing else that is stored is.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

fn sealed(mut content: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&content);
    content.extend_from_slice(&sum);
    content
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::hash(content);
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bits, so that negative zero is told from zero.
    fn bits(points: &[Point]) -> Vec<(i64, Option<u64>)> {
        points.iter().map(|(step, value)| (*step, value.map(f64::to_bits))).collect()
    }

    #[track_caller]
    fn check(points: &[Point]) {
        assert_eq!(bits(&unpack(&plain(points)).unwrap()), bits(points));
        assert_eq!(bits(&unpack(&pack(points).unwrap()).unwrap()), bits(points));
    }

    /// A loss as trainers report it: a 32-bit float that falls and trembles.
    #[expect(clippy::cast_possible_truncation, reason = "trainers compute with 32 bits")]
    fn loss(step: i64) -> f64 {
        // A sum of twelve uniform numbers is nearly normal; the generator is Knuth's.
        let mut state = step.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut noise = -6.0;
        for _ in 0..12 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            noise += (state >> 11) as f64 / (1_u64 << 53) as f64;
        }
        f64::from((3.0 + 5.0 * (-step as f64 / 2000.0).exp() + 0.05 * noise) as f32)
    }

    fn losses(n: i64) -> Vec<Point> {
        (1..=n).map(|step| (step, Some(loss(step)))).collect()
    }

    #[test]
    fn what_is_special_comes_back_bit_for_bit() {
        check(&[]);
        check(&[(7, Some(0.1))]);
        check(&[(0, Some(-0.0)), (1, Some(0.0)), (i64::MAX, None)]);
        check(&[(3, None), (9, None)]);
        check(&[(1, Some(f64::MIN_POSITIVE / 8.0)), (2, Some(f64::MAX)), (40, Some(f64::MIN))]);
        check(&[(1, Some(f64::from(f32::MAX))), (2, Some(f64::from(f32::MIN_POSITIVE) / 4.0))]);
        check(&losses(10_000));
    }

    #[test]
    fn values_of_32_bits_are_kept_as_such() {
        assert_eq!(pack(&losses(100)).unwrap()[0], PACKED_F32);
        assert_eq!(pack(&[(1, Some(0.5)), (2, Some(0.1))]).unwrap()[0], PACKED_F64);
    }

    /// The goal of three bytes a point, on a loss whose noise is a twentieth of a nat: of the 23
    /// bits of a 32-bit float some 19.7 are noise, which nothing can compress.
    #[test]
    fn a_loss_takes_less_than_three_bytes_a_point() {
        let points = losses(super::super::series::CHUNK_POINTS.try_into().unwrap());
        let bytes_per_point = pack(&points).unwrap().len() as f64 / points.len() as f64;
        assert!(bytes_per_point < 2.6, "{bytes_per_point}");
    }

    #[test]
    fn damage_is_an_error_and_no_other_number() {
        for whole in [plain(&losses(50)), pack(&losses(50)).unwrap()] {
            for index in 0..whole.len() {
                let mut damaged = whole.clone();
                damaged[index] ^= 4;
                assert!(unpack(&damaged).is_err(), "byte {index}");
                assert!(unpack(&whole[..index]).is_err(), "cut at {index}");
            }
        }
        let unknown = unpack(&sealed(vec![9, 1, 2])).unwrap_err();
        assert!(matches!(unknown, ChunkError::Kind { kind: 9 }), "{unknown}");
    }

    fn value() -> impl Strategy<Value = Option<f64>> {
        prop_oneof![
            1 => Just(None),
            8 => any::<f32>().prop_map(|value| finite(f64::from(value))),
            4 => any::<f64>().prop_map(finite),
            2 => Just(Some(0.25)),
        ]
    }

    proptest! {
        #[test]
        fn any_points_come_back_bit_for_bit(
            first in 0_i64..1000,
            points in prop::collection::vec((1_i64..50, value()), 0..400),
        ) {
            let mut step = first;
            let points: Vec<Point> = points
                .into_iter()
                .map(|(gap, value)| {
                    step += gap;
                    (step, value)
                })
                .collect();
            check(&points);
        }
    }
}
