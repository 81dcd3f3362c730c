//! `gradus-worker forward`: a model from its files, applied to given tokens.
//!
//! It trains nothing.

use std::path::Path;

use anyhow::{Context, Result};
use models::LanguageModel;
use tch::{Device, Tensor};

use super::input;
use crate::checkpoint::{CONFIG_FILE, MODEL_FILE, NamedTensors, tensors};
use crate::cli::ForwardArgs;

pub(super) fn forward(args: &ForwardArgs) -> Result<()> {
    let config = input::config(&args.model.join(CONFIG_FILE))?;
    let weights = read_weights(&args.model.join(MODEL_FILE))?;
    let mut model = LanguageModel::new(&config, Device::Cpu, 0)?;
    model.load(&weights).with_context(|| {
        format!("the weights in `{}` do not fit its configuration", args.model.display())
    })?;
    let (ids, length) = input::tokens(&args.tokens, config.shape.vocab_size)?;
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
            let gradient = parameter.grad();
            // A parameter that the loss does not depend on has none.
            let gradient = if gradient.defined() { gradient } else { parameter.zeros_like() };
            outputs.push((format!("grad.{name}"), gradient));
        }
    }
    if args.loss {
        outputs.push(("loss".to_owned(), loss));
    }
    Ok(())
}

fn read_weights(path: &Path) -> Result<NamedTensors> {
    let name = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("could not read `{name}`"))?;
    tensors::from_bytes(&bytes).with_context(|| format!("`{name}` is no file of tensors"))
}

#[expect(clippy::print_stderr, reason = "a note for people, apart from the data")]
fn warn(text: &str) {
    eprintln!("gradus-worker: {text}");
}
