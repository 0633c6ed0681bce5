//! The io_uring engine: under construction; `auto` takes epoll until it is there.

pub(crate) fn probe() -> Result<(), String> {
    Err("the io_uring engine is not built yet".into())
}

pub(crate) type UringDriver = crate::epoll::EpollDriver;
