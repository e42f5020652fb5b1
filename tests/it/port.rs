//! Ports for servers that tests start.

use tokio::net::TcpSocket;

/// A port of 127.0.0.1 that is kept for the one who is told of it: no other program is given it, but
/// a server that asks for just this one gets it.
pub struct Port(TcpSocket);

impl Port {
    pub fn reserve() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    pub fn number(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }
}
