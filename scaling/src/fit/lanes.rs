//! Owns exponentials and logarithms of four numbers at once, written so that the compiler uses vector instructions.
//! Does not handle what a fit never meets: arguments of `ln` that are zero, negative or not finite.

/// Numbers that are worked on together.
pub(super) const LANES: usize = 4;
pub(super) type Lanes = [f64; LANES];

/// e^x to two units in the last place, for |x| below 700; beyond, that of 700.
///
/// x = k ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor series to r^13, whose rest is below 2e-16.
#[inline]
pub(super) fn exp(x: Lanes) -> Lanes {
    // 1.5 · 2^52: adding it rounds to a whole number, which then stands in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const TAYLOR: [f64; 14] = [
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let mut out = [0.0; LANES];
    let mut shifted = [0.0; LANES];
    let mut rest = [0.0; LANES];
    for i in 0..LANES {
        let x = x[i].clamp(-700.0, 700.0);
        shifted[i] = x * std::f64::consts::LOG2_E + ROUND;
        let k = shifted[i] - ROUND;
        rest[i] = (x - k * LN_2_HIGH) - k * LN_2_LOW;
        out[i] = TAYLOR[0];
    }
    for coefficient in &TAYLOR[1..] {
        for i in 0..LANES {
            out[i] = out[i] * rest[i] + coefficient;
        }
    }
    for i in 0..LANES {
        out[i] = f64::from_bits(out[i].to_bits().wrapping_add(shifted[i].to_bits() << 52));
    }
    out
}

/// ln x to two units in the last place, for normal positive x.
///
/// x = 2^k m with m from √½ to √2; ln m = 2 artanh((m - 1) / (m + 1)), whose series ends at the 21st power.
#[inline]
pub(super) fn ln(x: Lanes) -> Lanes {
    const SQRT_HALF_BITS: u64 = 0x3FE6_A09E_667F_3BCD;
    const BIAS: u64 = 1024;
    const TWO_52: f64 = 4_503_599_627_370_496.0;
    const SERIES: [f64; 11] = [
        2.0 / 21.0,
        2.0 / 19.0,
        2.0 / 17.0,
        2.0 / 15.0,
        2.0 / 13.0,
        2.0 / 11.0,
        2.0 / 9.0,
        2.0 / 7.0,
        2.0 / 5.0,
        2.0 / 3.0,
        2.0,
    ];
    let (mut k, mut s, mut sum) = ([0.0; LANES], [0.0; LANES], [SERIES[0]; LANES]);
    for i in 0..LANES {
        let bits = x[i].to_bits();
        let biased = bits.wrapping_sub(SQRT_HALF_BITS).wrapping_add(BIAS << 52) >> 52;
        // A whole number below 2^52, put behind the exponent of 2^52, is that number above 2^52.
        k[i] = f64::from_bits(TWO_52.to_bits() | biased) - (TWO_52 + BIAS as f64);
        let m = f64::from_bits(bits.wrapping_sub(biased.wrapping_sub(BIAS) << 52));
        s[i] = (m - 1.0) / (m + 1.0);
    }
    for coefficient in &SERIES[1..] {
        for i in 0..LANES {
            sum[i] = sum[i] * (s[i] * s[i]) + coefficient;
        }
    }
    let mut out = [0.0; LANES];
    for i in 0..LANES {
        out[i] = k[i] * std::f64::consts::LN_2 + s[i] * sum[i];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_and_logarithms_are_those_of_the_standard_library() {
        for step in -3000..3000_i32 {
            let x = 0.2317 * f64::from(step);
            let found = exp([x, 0.5 * x, 1e-3 * x, 0.0]);
            for (found, x) in found.into_iter().zip([x, 0.5 * x, 1e-3 * x, 0.0]) {
                let expected = x.clamp(-700.0, 700.0).exp();
                assert!((found / expected - 1.0).abs() < 1e-15, "exp {x}: {found}");
            }
            let y = (0.1 * x).exp();
            let found = ln([y, 1.0 + 1e-6 * x, 1.0, 0.75])[0..2].to_vec();
            for (found, y) in found.into_iter().zip([y, 1.0 + 1e-6 * x]) {
                let expected = y.ln();
                assert!(
                    (found - expected).abs() <= 1e-15 * expected.abs().max(0.3),
                    "ln {y}: {found}"
                );
            }
        }
        assert_eq!(ln([1.0; LANES]), [0.0; LANES]);
    }
}
