//! The named values of `config.json`: architecture, norm, rotation, activation.
//!
//! It does not know which of them go together; `config` does.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ModelError;

/// An enum whose values have one text each, the same in files, SQL, protos and dashboards.
macro_rules! named_enum {
    (
        $(#[$meta:meta])*
        $name:ident, $field:literal {
            $($(#[$variant_meta:meta])* $variant:ident => $label:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
        )]
        pub enum $name {
            $($(#[$variant_meta])* #[serde(rename = $label)] $variant,)+
        }

        impl $name {
            /// All values, in the contract's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The texts of all values, in the contract's order.
            pub const LABELS: &'static [&'static str] = &[$($label,)+];

            /// The text of the value in `config.json` and everywhere else.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.label())
            }
        }

        impl FromStr for $name {
            type Err = ModelError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|value| value.label() == text)
                    .ok_or_else(|| ModelError::unknown_name($field, text, Self::LABELS))
            }
        }
    };
}

named_enum! {
    /// Which mixing layer the model has.
    Architecture, "architecture" {
        /// Softmax attention with rotary positions.
        Llama => "llama",
        /// Linear attention with a fixed scalar decay per head.
        Tnl => "tnl",
        /// Linear attention with a data-dependent decay per channel.
        Hgrn2 => "hgrn2",
        /// Linear attention without decay, with cosine weights and a Toeplitz position encoding.
        CosFormer2 => "cosformer2",
    }
}

named_enum! {
    /// The norm before the mixer, before the channel mixer and before the head.
    Norm, "norm" {
        /// Root mean square, with a weight.
        RmsNorm => "rmsnorm",
        /// Mean and biased variance, with weight and bias.
        LayerNorm => "layernorm",
        /// Root mean square without parameters.
        SrmsNorm => "srmsnorm",
    }
}

named_enum! {
    /// Which channels the rotation of `llama` pairs, and at what angle.
    Rope, "rope" {
        /// Channel j of a head with channel j + d_h/2, angle t · base^(−2j/d_h).
        Half => "half",
        /// Channels 2j and 2j+1; the frequencies run on over all heads, angle t · base^(−2m/d).
        InterleavedFull => "interleaved_full",
    }
}

named_enum! {
    /// What is applied to the gate branch of the channel mixer.
    FfnActivation, "ffn_activation" {
        /// x · sigmoid(x).
        Silu => "silu",
        /// Nothing.
        Identity => "identity",
    }
}
