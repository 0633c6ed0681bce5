//! A part of another device, its blocks numbered from zero, like a partition.

use std::sync::Arc;

use crate::path::stack::check_stack;
use crate::{
    Claim, Cx, Device, Geometry, Io, Lane, LaneCx, LaneId, Layer, LayerParts, OpenError, Operation, Status,
    Submit,
};

/// The blocks of a device from some block on. Shared by all threads, without state.
pub struct Offset {
    parts: LayerParts,
    from: u64,
    geometry: Geometry,
    claim: Claim,
}

impl Offset {
    /// `blocks` blocks of `below` from block `from` on.
    ///
    /// # Errors
    /// [`Geometry`](OpenError::Geometry) if that is no block, reaches beyond the device, or begins within one of its
    /// write units.
    pub fn new(
        name: impl Into<String>,
        below: Arc<dyn Device>,
        from: u64,
        blocks: u64,
    ) -> Result<Arc<Offset>, OpenError> {
        let name = name.into();
        check_stack(&name, std::slice::from_ref(&below))?;
        let whole = below.geometry();
        match whole.part(from, blocks) {
            Ok(geometry) => {
                let shift = geometry.block_shift();
                let part = below.claim().map(|whole| whole.part(from << shift, blocks << shift));
                let (parts, claim) = (LayerParts::new(name, below), part.unwrap_or_default());
                Ok(Arc::new(Offset { parts, from, geometry, claim }))
            }
            Err(source) => Err(OpenError::Geometry { device: name, source }),
        }
    }
}

impl Layer for Offset {
    fn parts(&self) -> &LayerParts {
        &self.parts
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn claim(&self) -> Option<&Claim> {
        Some(&self.claim)
    }

    fn lane(self: Arc<Self>, below: LaneId, _cx: &mut LaneCx<'_>) -> Result<Box<dyn Lane>, OpenError> {
        Ok(Box::new(OffsetLane { below, from: self.from, geometry: self.geometry }))
    }
}

struct OffsetLane {
    below: LaneId,
    from: u64,
    geometry: Geometry,
}

impl Lane for OffsetLane {
    fn submit(&mut self, mut io: Io, cx: &mut Cx<'_>) -> Submit {
        let (start, aux) = (io.start(), io.aux());
        // Checked again: beyond this part lie other users' data.
        match io.check(&self.geometry) {
            Ok(()) => {
                io.set_start(start + self.from);
                if io.operation() == Operation::Copy {
                    io.set_aux(aux + self.from);
                }
                cx.forward(self.below, io, [start, aux]);
            }
            Err(kind) => cx.done(io, Err(kind)),
        }
        Submit::Taken
    }

    fn complete(&mut self, mut io: Io, [start, aux]: [u64; 2], status: Status, cx: &mut Cx<'_>) {
        io.set_start(start);
        match io.operation() {
            Operation::Copy => io.set_aux(aux),
            // The end of the part is the end for a seek.
            Operation::SeekData | Operation::SeekHole => {
                io.set_aux(io.aux().saturating_sub(self.from).min(self.geometry.blocks()));
            }
            _ => {}
        }
        cx.done(io, status);
    }
}
