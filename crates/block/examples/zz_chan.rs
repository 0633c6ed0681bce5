//! scratch
use std::future::Future; use std::pin::pin; use std::sync::Arc; use std::task::*; use spindle_block::*; use spindle_mem::*;
fn main(){ let d:Arc<dyn Device>=Null::new("null", Geometry::new(4096,1<<14).unwrap()); let t=LaneTable::default(); let c=t.channel(d).unwrap(); let mut b=Some(Buffers::from(IoBuf::zeroed(4096))); let mut at=1u64;
for _ in 0..60_000_000u64 { at=at.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); let r=pin!(c.read(((at>>33)%(1<<14))*4096,b.take().unwrap())); let Poll::Ready((x,k))=r.poll(&mut Context::from_waker(Waker::noop())) else {panic!()}; x.unwrap(); b=Some(k);} }
