//! Requests in flight: the same loop drives a bare disk and a blob, so that its cost is the same for both.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use spindle::mem::{Buffers, IoBuf};

use super::Failed;

/// Buffers of `bytes` bytes for `depth` requests in flight.
pub fn buffers(depth: usize, bytes: usize) -> Vec<Buffers> {
    (0..depth).map(|_| Buffers::from(IoBuf::zeroed(bytes))).collect()
}

/// Makes `requests` requests, as many in flight as there are buffers, and returns when all are done. After an
/// error no more are made.
///
/// # Errors
/// The first one of any request.
pub async fn fly<F, E>(
    requests: u64,
    idle: &mut Vec<Buffers>,
    mut make: impl FnMut(Buffers) -> F,
) -> Result<(), Failed>
where
    F: Future<Output = (Result<(), E>, Buffers)>,
    E: Into<Failed>,
{
    let mut left = requests;
    let mut result = Ok(());
    // Boxed once: a place takes one request after the other.
    let mut places: Vec<Pin<Box<Option<F>>>> = Vec::with_capacity(idle.len());
    while left > 0
        && let Some(buffers) = idle.pop()
    {
        places.push(Box::pin(Some(make(buffers))));
        left -= 1;
    }
    let mut flying = places.len();
    poll_fn(|cx| {
        for place in &mut places {
            while let Some(request) = place.as_mut().as_pin_mut() {
                let Poll::Ready((ended, buffers)) = request.poll(cx) else { break };
                if let Err(error) = ended {
                    result = Err(error.into());
                    left = 0;
                }
                if left > 0 {
                    left -= 1;
                    place.set(Some(make(buffers)));
                } else {
                    place.set(None);
                    flying -= 1;
                    idle.push(buffers);
                }
            }
        }
        if flying == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    result
}
