use spindle::{Channel, IoBuf, Thread};

async fn read_there(worker: Thread, channel: Channel) {
    let _ = worker.run(async move || channel.read(0, IoBuf::zeroed(512)).await.0).await;
}

fn main() {}
