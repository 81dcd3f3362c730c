//! What a saved fit can be asked, by the law that was fitted.
//!
//! The answer is `gradus predict`'s.

use scaling::law::{LawChoice, LawName, Variable};

/// The flags with which `gradus predict` has an answer from a fit of this law.
pub(super) fn flags(choice: LawChoice) -> String {
    if matches!(choice.name, LawName::Chinchilla | LawName::Coupled) {
        return flag(Variable::Flops).to_owned();
    }
    let variables = choice.law().variables();
    let sizes = [Variable::Parameters, Variable::Tokens];
    let has_sizes = sizes.iter().all(|one| variables.contains(one));
    // From N and D the fit knows C.
    let asked = variables.iter().copied().filter(|one| !has_sizes || *one != Variable::Flops);
    asked.map(flag).collect::<Vec<_>>().join(" ")
}

fn flag(variable: Variable) -> &'static str {
    match variable {
        Variable::Parameters => "--n PARAMETERS",
        Variable::Tokens => "--d TOKENS",
        Variable::Flops => "--c FLOPS",
        Variable::UniqueTokens => "--unique TOKENS",
        Variable::WeightBits => "--bits BITS",
        Variable::ActivationBits => "--bits-activations BITS",
        Variable::CacheBits => "--bits-cache BITS",
        Variable::TaskLoss => "--loss LOSS",
        Variable::RateSum => "--rate-sum SUM",
        Variable::RateFall => "--rate-fall SUM",
    }
}

#[cfg(test)]
mod tests {
    use scaling::law::Axis;

    use super::*;

    #[test]
    fn every_law_is_asked_for_what_it_looks_at() {
        let asked = |name| flags(LawChoice::of(name));
        assert_eq!(asked(LawName::Chinchilla), "--c FLOPS");
        assert_eq!(asked(LawName::Kaplan), "--n PARAMETERS --d TOKENS");
        assert_eq!(asked(LawName::Sigmoid), "--loss LOSS");
        assert!(!asked(LawName::Overtraining).contains("--c "), "C follows from N and D");
        assert!(asked(LawName::Precision).contains("--bits BITS"));
        let of_tokens = LawChoice { axis: Axis::Tokens, ..LawChoice::of(LawName::BrokenPower) };
        assert_eq!(flags(of_tokens), "--d TOKENS");
        for name in LawName::ALL {
            assert!(asked(name).starts_with("--"), "{name}");
        }
    }
}
