//! Published ports: `docker run -p 8080:80 -p 5353:53/udp`.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

use overlay_tests::{netns::Netns, node::Container};

use crate::ground::{Backend, LIMIT, on_two_dockers, report};

const PUBLISHED: u16 = 8080;
const PUBLISHED_DNS: u16 = 5353;
/// How much is asked for over one connection.
const PAGE: usize = 4 << 20;
const CONNECTIONS: u32 = 5;
const PACKETS: u32 = 50;

/// The servers in a container that its node publishes.
struct Service {
    web: TcpListener,
    dns: UdpSocket,
}

impl Service {
    fn new(container: &Container) -> Self {
        let any = Ipv4Addr::UNSPECIFIED;
        let web = container.netns.run(|| TcpListener::bind((any, 80))).unwrap();
        let dns = container.netns.run(|| UdpSocket::bind((any, 53))).unwrap();
        dns.set_read_timeout(Some(LIMIT)).unwrap();
        Self { web, dns }
    }

    /// Lets `client` fetch a page and ask questions at `address`. Returns whom TCP and UDP seemed to come from.
    fn serve(&self, client: &Netns, address: Ipv4Addr) -> [IpAddr; 2] {
        [self.serve_pages(client, (address, PUBLISHED).into()), self.answer(client, (address, PUBLISHED_DNS).into())]
    }

    fn serve_pages(&self, client: &Netns, to: SocketAddr) -> IpAddr {
        let page: Vec<u8> = (0..PAGE).map(|place| (place / 251 + place) as u8).collect();
        let mut seen = None;
        for _ in 0..CONNECTIONS {
            let mut near =
                client.run(|| TcpStream::connect_timeout(&to, LIMIT)).unwrap_or_else(|e| panic!("{to}: {e}"));
            let (mut far, from) = self.web.accept().unwrap();
            for stream in [&near, &far] {
                stream.set_read_timeout(Some(LIMIT)).unwrap();
            }
            near.write_all(b"GET /").unwrap();
            far.read_exact(&mut [0; 5]).unwrap();
            let mut fetched = Vec::new();
            thread::scope(|scope| {
                let page = &page;
                scope.spawn(move || {
                    far.write_all(page).unwrap();
                    drop(far);
                });
                near.read_to_end(&mut fetched).unwrap();
            });
            assert!(fetched == page, "{} bytes of {PAGE} from {to}, or others", fetched.len());
            seen = Some(from.ip());
        }
        seen.unwrap()
    }

    fn answer(&self, client: &Netns, to: SocketAddr) -> IpAddr {
        let near = client.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
        near.set_read_timeout(Some(LIMIT)).unwrap();
        near.connect(to).unwrap();
        let mut seen = None;
        for _ in 0..PACKETS {
            near.send(b"question").unwrap();
            let (_, from) = self.dns.recv_from(&mut [0; 16]).unwrap_or_else(|error| panic!("{to}: {error}"));
            self.dns.send_to(b"answer", from).unwrap();
            // Connected: an answer from anywhere but the published address would not arrive.
            let answer = near.recv(&mut [0; 16]).unwrap_or_else(|error| panic!("{to} seen from {from}: {error}"));
            assert_eq!(answer, b"answer".len());
            seen = Some(from.ip());
        }
        seen.unwrap()
    }
}

#[test]
fn a_published_port_serves_the_outside_and_containers_of_either_node() {
    on_two_dockers(Backend::Vxlan, |ground| {
        let [one, two] = ground.nodes();
        let (outsider, outside) = ground.outsider();
        let publish = format!("--publish {PUBLISHED}:80 --publish {PUBLISHED_DNS}:53/udp");
        let web = ground.dockers[0].run("web", &publish).unwrap();
        let [neighbour, far] = ground.containers();
        let (node, gateway) = (one.address(), one.subnet().gateway());
        let service = Service::new(&web.container);

        // The source that the service sees: the client's own, unless somebody on the way masquerades it.
        let (far, near) = (&far.container, &neighbour.container);
        let cases = [
            ("the outside to the node", &outsider, node, outside),
            ("the other node to the node", two.netns(), node, two.address()),
            ("a container on the other node to the node", &far.netns, node, two.address()),
            ("a container on the other node to the gateway", &far.netns, gateway, far.v4()),
        ];
        for (name, client, address, source) in &cases {
            assert_eq!(service.serve(client, *address), [IpAddr::V4(*source); 2], "{name}");
        }
        // Between containers of one bridge Docker's proxy stands, whose UDP answers come from the gateway's address.
        service.serve_pages(&near.netns, (node, PUBLISHED).into());
        service.serve(&near.netns, gateway);
        // And by programs in containers, at the service's own address too.
        drop(service);
        let [here, there] = &ground.dockers;
        here.exec("web", "echo hello > /tmp/hello && httpd -p 80 -h /tmp").unwrap();
        let urls = [format!("{node}:{PUBLISHED}"), format!("{gateway}:{PUBLISHED}"), web.container.v4().to_string()];
        for url in &urls {
            assert_eq!(there.exec("there", &format!("wget -q -O - http://{url}/hello")).unwrap(), "hello\n", "{url}");
        }
        there.exec("there", &format!("ping -c 3 -i 0.1 -W 5 {gateway}")).unwrap();
        report(format_args!(
            "published port: {} ways from elsewhere and 2 from the same node, each with {CONNECTIONS} connections of {} MiB and {PACKETS} UDP questions and answers; \
             {} pages by httpd and wget; 3 pings to the gateway",
            cases.len(),
            PAGE >> 20,
            urls.len()
        ));
    });
}
