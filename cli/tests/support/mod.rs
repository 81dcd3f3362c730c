//! What the tests of the program share: a folder with a file, and the program run in it.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "a module of a test is no library")]

use std::fmt::Write as _;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Runs the program in a folder.
pub fn gradus(folder: &TempDir, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gradus"))
        .current_dir(folder.path())
        .args(arguments.split_whitespace())
        .env_remove("GRADUS_COORDINATOR")
        .output()
        .unwrap()
}

/// Status and both streams, for messages.
pub fn shown(output: &Output) -> String {
    format!(
        "status {:?}\n{}{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A folder with `points.csv`.
pub fn file(text: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("points.csv"), text).unwrap();
    folder
}

/// What a command that must succeed prints as JSON.
pub fn json(folder: &TempDir, arguments: &str) -> serde_json::Value {
    let output = gradus(folder, arguments);
    assert!(output.status.success(), "{arguments}\n{}", shown(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", shown(&output)))
}

/// A design of 5 × 6 with a column for every variable and a loss for every law.
pub fn planted() -> String {
    let mut text = String::from(
        "arch,n,d,c,unique,bits,s1,s2,power,floor,kaplan,chinchilla,coupled,over,repeated,precise,annealed,task,accuracy\n",
    );
    for size in 0..5_i32 {
        for count in 0..6_i32 {
            let (n, d) = (1e6 * 6_f64.powi(size), 3e7 * 6_f64.powi(count));
            let c = 6.0 * n * d;
            let unique = d / [1.0, 2.0, 6.0, 15.0][usize::try_from((size + count) % 4).unwrap()];
            let bits = [3.0, 4.0, 6.0, 16.0][usize::try_from((2 * size + count) % 4).unwrap()];
            let (s1, s2) = (d * 1e-6, 0.1 * f64::from(count % 3));
            let (size_term, data_term) = (400.0 / n.powf(0.34), 900.0 / d.powf(0.31));
            let m = d / n;
            let over = 1.5 + (150.0 * m.powf(0.12) + 200.0 * m.powf(-0.12)) * c.powf(-0.12);
            let more = |excess: f64, decay: f64| 1.0 + decay * (1.0 - (-excess / decay).exp());
            let tokens = unique * more(d / unique - 1.0, 12.0);
            let g = (0.34 * 400.0 / (0.31 * 900.0_f64)).powf(1.0 / 0.65);
            let useful = n.min((unique * g).powf(0.31 / 0.34) * g);
            let parameters = useful * more(n / useful - 1.0, 6.0);
            let repeated = 1.7 + 400.0 / parameters.powf(0.34) + 900.0 / tokens.powf(0.31);
            let effective = n * (1.0 - (-bits / 2.5_f64).exp());
            let task = 0.4 + 0.05 * f64::from(6 * size + count);
            let losses = [
                60.0 * c.powf(-0.06),
                1.6 + (1e15 / c).powf(0.12),
                ((6.4e13 / n).powf(0.076 / 0.103) + 1.8e13 / d).powf(0.103),
                1.7 + size_term + data_term,
                1.4 + (3000.0 / n.powf(0.55) + 9000.0 / d.powf(0.5)).powf(0.45),
                over,
                repeated,
                1.7 + 400.0 / effective.powf(0.34) + data_term,
                1.8 + 6.0 * s1.powf(-0.3) - 0.7 * s2,
                task,
                0.95 - 0.7 / (1.0 + (-5.0 * (task - 0.9)).exp()),
            ];
            let arch = if count % 2 == 0 { "tnl" } else { "llama" };
            write!(text, "{arch},{n},{d},{c},{unique},{bits},{s1},{s2}").unwrap();
            for loss in losses {
                write!(text, ",{loss}").unwrap();
            }
            text.push('\n');
        }
    }
    text
}
