use spindle::{Channel, IoBuf};

async fn fill(channel: Channel) {
    let mut buffer = IoBuf::zeroed(512);
    let read = channel.read(0, buffer);
    buffer[0] = 1;
    let _ = read.await;
}

fn main() {}
