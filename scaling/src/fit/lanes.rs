//! Owns exponentials and logarithms of several numbers at once, written so that the compiler uses
//! vector instructions. Does not handle what a fit never meets: arguments of `ln` that are zero,
//! negative or not finite.

/// Numbers that are worked on together.
pub(super) const LANES: usize = 8;
pub(super) type Lanes = [f64; LANES];

// A call would put all lanes through memory, so these are inlined whatever their size.

/// e^x to two units in the last place, for |x| below 700; beyond, that of 700.
///
/// x = k ln 2 + r with |r| <= ln 2 / 2, and e^r = 1 + r + r² q(r). q is the polynomial of degree 9
/// through (e^r - 1 - r) / r² at the ten Chebyshev nodes, which puts e^r within 2e-17. Its even and
/// odd parts are summed apart, because one long chain of products waits for itself.
#[inline(always)]
pub(super) fn exp(x: Lanes) -> Lanes {
    // 1.5 · 2^52: adding it rounds to a whole number, which then stands in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const EVEN: [f64; 5] = [
        2.762_007_587_998_336_7e-7,
        2.480_152_132_236_869e-5,
        0.001_388_888_891_719_671_9,
        0.041_666_666_666_624_164,
        0.5,
    ];
    const ODD: [f64; 5] = [
        2.510_037_583_256_123_4e-8,
        2.755_726_848_031_002_4e-6,
        0.000_198_412_698_630_405_45,
        0.008_333_333_333_330_065,
        0.166_666_666_666_666_7,
    ];
    let mut out = [0.0; LANES];
    let mut shifted = [0.0; LANES];
    let mut rest = [0.0; LANES];
    for i in 0..LANES {
        let x = x[i].clamp(-700.0, 700.0);
        shifted[i] = x * std::f64::consts::LOG2_E + ROUND;
        let k = shifted[i] - ROUND;
        rest[i] = (x - k * LN_2_HIGH) - k * LN_2_LOW;
    }
    for i in 0..LANES {
        let (r, square) = (rest[i], rest[i] * rest[i]);
        let even = horner(&EVEN, square);
        let odd = horner(&ODD, square);
        out[i] = 1.0 + (r + square * (even + r * odd));
    }
    for i in 0..LANES {
        out[i] = f64::from_bits(out[i].to_bits().wrapping_add(shifted[i].to_bits() << 52));
    }
    out
}

/// How far from zero [`ln_1p_near`] is good.
pub(super) const NEAR_ONE: f64 = 0.125;

/// ln(1 + u) for |u| up to [`NEAR_ONE`], given 1 / (2 + u): relative error a few 1e-16 also where u
/// is tiny.
///
/// 2 artanh(s) with s = u / (2 + u), by the polynomial of degree 4 in s² through (artanh(s) / s -
/// 1) / s² at the Chebyshev nodes, which is within 2e-18.
#[inline(always)]
pub(super) fn ln_1p_near(u: Lanes, inverse: Lanes) -> Lanes {
    const SERIES: [f64; 5] = [
        0.091_769_169_936_779_78,
        0.111_107_759_677_402_05,
        0.142_857_148_181_639_7,
        0.199_999_999_997_040_74,
        0.333_333_333_333_333_6,
    ];
    let mut out = [0.0; LANES];
    for i in 0..LANES {
        let s = u[i] * inverse[i];
        let square = s * s;
        let twice = s + s;
        out[i] = twice + twice * (square * horner(&SERIES, square));
    }
    out
}

/// The polynomial with these coefficients, the highest power first.
#[inline]
fn horner(coefficients: &[f64; 5], x: f64) -> f64 {
    let [a, b, c, d, e] = coefficients;
    (((a * x + b) * x + c) * x + d) * x + e
}

/// ln x to two units in the last place, for normal positive x.
///
/// x = 2^k m with m from √½ to √2; ln m = 2 artanh((m - 1) / (m + 1)), whose series ends at the
/// 21st power.
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
            let all: Lanes = std::array::from_fn(|i| x * [1.0, 0.5, 1e-3, 0.0][i % 4]);
            for (found, x) in exp(all).into_iter().zip(all) {
                let expected = x.clamp(-700.0, 700.0).exp();
                assert!((found / expected - 1.0).abs() < 1e-15, "exp {x}: {found}");
            }
            let y = (0.1 * x).exp();
            let all: Lanes = std::array::from_fn(|i| [y, 1.0 + 1e-6 * x, 1.0, 0.75][i % 4]);
            for (found, y) in ln(all).into_iter().zip(all) {
                let expected = y.ln();
                assert!(
                    (found - expected).abs() <= 1e-15 * expected.abs().max(0.3),
                    "ln {y}: {found}"
                );
            }
        }
        assert_eq!(ln([1.0; LANES]), [0.0; LANES]);
    }

    #[test]
    fn the_logarithm_near_one_is_exact_relative_to_itself() {
        for step in -1000..=1000_i32 {
            let of = |scale: f64| scale * NEAR_ONE * f64::from(step) / 1000.0;
            let all: Lanes = std::array::from_fn(|i| of([1.0, 1e-3, 1e-9, 1e-16][i % 4]));
            let found = ln_1p_near(all, all.map(|u| 1.0 / (2.0 + u)));
            for (found, u) in found.into_iter().zip(all) {
                let expected = u.ln_1p();
                assert!((found - expected).abs() <= 1e-15 * expected.abs(), "{u}: {found}");
            }
        }
    }
}
