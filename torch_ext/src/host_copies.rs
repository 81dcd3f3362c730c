//! Owns copying tensors to the CPU's memory while their device goes on working.
//!
//! Does not know what the copies are for; checkpoints are made of them.

use std::sync::Arc;

use tch::{Device, Tensor};

use crate::{Event, Stream, TorchError};

const OPERATION: &str = "copy to the CPU's memory";

/// Copies on their way. What comes from the CPU is there at once.
///
/// Until they are there, nothing may write to what is copied: the one who does so next lets its stream
/// wait for [`Self::read`] before.
#[derive(Debug)]
pub struct HostCopies {
    copies: Vec<Tensor>,
    /// What is being read, so that its memory is not given to other tensors meanwhile.
    sources: Vec<Tensor>,
    read: Option<Arc<Event>>,
}

impl HostCopies {
    /// Begins to copy tensors of the CPU and of at most one other device.
    pub fn begin(sources: Vec<Tensor>) -> Result<Self, TorchError> {
        let mut devices = sources.iter().map(Tensor::device).filter(|one| *one != Device::Cpu);
        let Some(device) = devices.next() else {
            return Ok(Self { copies: copies_of(&sources)?, sources: Vec::new(), read: None });
        };
        if let Some(device) = devices.find(|other| *other != device) {
            let wanted = "the CPU and one other device";
            return Err(TorchError::Device { operation: OPERATION, device, wanted });
        }
        let stream = Stream::beside(device)?;
        stream.wait_for(&Event::after(Stream::current(device)?)?)?;
        let copies = stream.within(|| copies_of(&sources))??;
        let read = Some(Arc::new(Event::after(stream)?));
        Ok(Self { copies, sources, read })
    }

    /// The mark after which the device has read all; none where it has already.
    pub fn read(&self) -> Option<Arc<Event>> {
        self.read.clone()
    }

    /// The copies in the order of what they are of, once they are there.
    pub fn wait(self) -> Result<Vec<Tensor>, TorchError> {
        if let Some(read) = &self.read {
            read.wait()?;
        }
        drop(self.sources);
        Ok(self.copies)
    }
}

fn copies_of(sources: &[Tensor]) -> Result<Vec<Tensor>, TorchError> {
    let copy = |source: &Tensor| {
        // From a device libtorch takes page-locked memory for this, which the device writes by itself.
        let (without_waiting, always_new) = (true, true);
        source.f_to_dtype_layout((source.kind(), Device::Cpu), without_waiting, always_new)
    };
    tch::no_grad(|| sources.iter().map(copy).collect::<Result<_, _>>())
        .map_err(|source| TorchError::Tch { operation: OPERATION, source })
}
