//! `gradus-worker forward`: a model from its files, applied to given tokens.
//!
//! It trains nothing.

use anyhow::{Context, Result};
use models::LanguageModel;
use tch::Tensor;

use super::{input, warn};
use crate::checkpoint::{NamedTensors, tensors};
use crate::cli::ForwardArgs;

pub(super) fn forward(args: &ForwardArgs) -> Result<()> {
    let model = input::model(&args.model)?;
    let (ids, length) = input::tokens(&args.tokens, model.config().shape.vocab_size)?;
    let tokens = Tensor::f_from_slice(&ids)?.f_view([-1, length])?; // [B, T]
    let mut outputs = vec![("logits".to_owned(), tch::no_grad(|| model.forward(&tokens)))];
    if length > 1 {
        add_loss(args, &model, &tokens, &mut outputs)?;
    } else if args.loss || args.grad {
        warn("rows of one token have no next token, so there is no loss and no gradient");
    }
    let bytes = tensors::to_bytes(&outputs)?;
    std::fs::write(&args.out, bytes)
        .with_context(|| format!("could not write `{}`", args.out.display()))
}

fn add_loss(
    args: &ForwardArgs,
    model: &LanguageModel,
    tokens: &Tensor,
    outputs: &mut NamedTensors,
) -> Result<()> {
    if !args.loss && !args.grad {
        return Ok(());
    }
    let loss = model.loss(tokens);
    if args.grad {
        loss.f_backward()?;
        for (name, parameter) in model.named_parameters() {
            outputs.push((format!("grad.{name}"), parameter.grad()));
        }
    }
    if args.loss {
        outputs.push(("loss".to_owned(), loss));
    }
    Ok(())
}
