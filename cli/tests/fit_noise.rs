//! Weights from the noise between seeds: what it is, that it is named, and that it is refused without
//! seeds.

#![expect(clippy::unwrap_used, reason = "a helper of a test may panic")]

mod support;

use std::fmt::Write as _;

use support::{file, gradus, json, shown};

/// 5 × 6 places with some seeds each; the luck of a seed grows as the fourth power of the loss.
fn seeds(n_seeds: i32) -> String {
    let mut text = String::from("n,d,loss\n");
    for size in 0..5_i32 {
        for count in 0..6_i32 {
            let (n, d) = (1e6 * 5_f64.powi(size), 3e7 * 5_f64.powi(count));
            let loss = 1.7 + 400.0 / n.powf(0.34) + 900.0 / d.powf(0.31);
            for seed in 0..n_seeds {
                let place = f64::from((size * 6 + count) * n_seeds + seed + 1);
                let luck = (place * 0.618_033_988_749).fract() - 0.5;
                let noise = 0.01 * (loss / 4.0).powi(4) * luck;
                writeln!(text, "{n},{d},{}", loss * noise.exp()).unwrap();
            }
        }
    }
    text
}

const FIT: &str = "fit --csv points.csv --law chinchilla --n n --d d --loss loss --draws 200";

#[test]
fn seeds_that_scatter_more_at_large_losses_weigh_less_there() {
    let folder = file(&seeds(3));
    let plain = json(&folder, &format!("{FIT} --objective log-squares --json"));
    let weighted = json(&folder, &format!("{FIT} --objective log-squares --seed-noise --json"));
    assert_eq!(plain["objective_name"], "sum of squared residuals of ln L");
    assert_eq!(
        weighted["objective_name"],
        "sum of squared residuals of ln L, each over the variance of ln L between seeds"
    );
    let noise = &weighted["seed_noise"];
    assert_eq!((&noise["n_places"], &noise["n_freedom"]), (&30.into(), &60.into()));
    assert_eq!((&noise["is_used"], &plain["seed_noise"]["is_used"]), (&true.into(), &false.into()));
    let power = noise["power"].as_f64().unwrap();
    assert!((power - 4.0).abs() < 1.5, "{noise}");
    // What decides the floor are the small losses, which are known best.
    let width = |fit: &serde_json::Value| {
        let floor = &fit["coefficients"]["E"];
        floor["high"].as_f64().unwrap() - floor["low"].as_f64().unwrap()
    };
    assert!(width(&weighted) < 0.5 * width(&plain), "{} {}", width(&weighted), width(&plain));
    let text = shown(&gradus(&folder, &format!("{FIT} --seed-noise")));
    assert!(text.contains("degrees of freedom, used as weights); rms is"), "{text}");
}

#[test]
fn without_seeds_there_is_no_noise_and_no_weight() {
    let folder = file(&seeds(1));
    assert!(json(&folder, &format!("{FIT} --json")).get("seed_noise").is_none());
    let output = gradus(&folder, &format!("{FIT} --seed-noise"));
    let text = shown(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("`--seed-noise`") && text.contains("there are 0, at 0 places"), "{text}");
    let output = gradus(&file(&seeds(3)), &format!("{FIT} --seed-noise --objective loss-squares"));
    assert_eq!(output.status.code(), Some(2));
    assert!(shown(&output).contains("`log-squares` goes with it"), "{}", shown(&output));
}

#[test]
fn weights_of_seeds_are_made_again_with_the_fit() {
    let folder = file(&seeds(3));
    for asked in ["", "--objective lad", "--objective log-squares --hold-out largest-size"] {
        // A noise that grows with the loss: its weights are those of a first fit, which is made again
        // as well.
        let fit = json(&folder, &format!("{FIT} --seed-noise {asked} --out fit.json --json"));
        assert!(fit["seed_noise"]["power"].as_f64().unwrap() > 2.0, "{asked}");
        let again = gradus(&folder, "fit --again fit.json --threads 2");
        assert!(again.status.success(), "{asked}: {}", shown(&again));
    }
}
