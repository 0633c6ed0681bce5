use spindle::Thread;
use spindle::reactor::{IoChannel, IoDevice};

// A thread's part of a device is for that thread; elsewhere, ask the device for the part there.
async fn use_there(worker: Thread, channel: IoChannel<Vec<u8>>) -> usize {
    worker.run(async move || channel.len()).await.unwrap()
}

// Nor can it be lent.
async fn lend_there(worker: Thread, device: IoDevice<Vec<u8>>) -> usize {
    let channel = device.channel().unwrap();
    worker.run(async || channel.len()).await.unwrap()
}

fn main() {}
