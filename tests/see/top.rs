//! `overlay top`, on a terminal of 80 columns and 24 lines, with real traffic.

use overlay_tests::{
    cluster::Backend,
    process::wait_until,
    steady::Steady,
    two_nodes::{LIMIT, flow, on_two_nodes, settings, two},
};

use crate::terminal::Terminal;

/// The lines from that which begins with `title` on.
fn below<'a>(screen: &'a str, title: &str) -> Option<Vec<&'a str>> {
    let lines = screen.lines().skip_while(|line| !line.starts_with(title));
    Some(lines.collect::<Vec<_>>()).filter(|lines| !lines.is_empty())
}

/// The word with this index in the line below that which begins with `title`.
fn cell<'a>(screen: &'a str, title: &str, index: usize) -> Option<&'a str> {
    below(screen, title)?.get(1)?.split_whitespace().nth(index)
}

/// What is on the screen as soon as `condition` is true of it.
#[track_caller]
fn screen_where(what: &str, terminal: &Terminal<'_>, condition: impl Fn(&str) -> bool) -> String {
    let mut screen = String::new();
    wait_until(what, 2 * LIMIT, || {
        screen = terminal.screen();
        condition(&screen)
    })
    .unwrap_or_else(|error| panic!("{error:#}:\n{screen}"));
    screen
}

/// The lines of a screen without the figures and the sparklines: what the README shows and what there is are to agree in it.
fn layout(screen: &str) -> Vec<String> {
    let word = |word: &str| match () {
        () if word.starts_with(|first: char| first.is_ascii_digit()) => Some("#".to_owned()),
        () if word.is_ascii() => Some(word.to_owned()),
        // Bars of a sparkline.
        () => None,
    };
    let line = |line: &str| line.split_whitespace().filter_map(word).collect::<Vec<_>>().join(" ");
    screen.lines().map(line).filter(|line| !line.is_empty()).collect()
}

/// The capture in the README.
fn documented() -> &'static str {
    let (_, from) = include_str!("../../README.md").split_once("```text\noverlay top").unwrap();
    from.split_once("```").unwrap().0
}

#[test]
fn top_shows_live_rates_obeys_keys_and_leaves_the_screen_as_it_was() {
    on_two_nodes(&settings(Backend::Vxlan), |cluster| {
        let [one, two] = two(cluster);
        let traffic = Steady::start(&flow(one, two)).unwrap();
        let terminal = Terminal::open(one);
        terminal.enter("echo before; overlay top; echo ended $?");

        let (peer, container) = (two.subnet().subnet().to_string(), one.container().v4().to_string());
        let busy = |rate: Option<&str>| rate.is_some_and(|rate| rate.ends_with(['k', 'M', 'G']));
        let shown = screen_where("rates of the peer and the container", &terminal, |screen| {
            busy(cell(screen, "PEER", 2)) && busy(cell(screen, "CONTAINER", 2))
        });
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 24, "{shown}");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{shown}");
        let title = format!("overlay top  {}/24  eth0 {}  vxlan", one.subnet().subnet(), one.address());
        assert_eq!(lines[0], title, "{shown}");
        assert!(lines[1].starts_with("sent ") && lines[1].contains("fast path"), "{shown}");
        assert_eq!(cell(&shown, "PEER", 0), Some(format!("{peer}/24").as_str()), "{shown}");
        assert_eq!(cell(&shown, "PEER", 1), Some(two.address().to_string().as_str()), "{shown}");
        assert!(lines.iter().any(|line| line.starts_with(&container) && line.contains("container")), "{shown}");
        assert!(shown.contains("SENTv") && shown.contains("nothing dropped"), "{shown}");
        assert!(lines[23].contains("q quit"), "{shown}");

        let readme = layout(&format!("overlay top{}", documented()));
        assert_eq!(layout(&shown), readme, "the README's capture is of another layout:\n{shown}");

        terminal.key("s");
        screen_where("another column to be sorted by", &terminal, |screen| screen.contains("RECVDv"));
        terminal.key("p");
        let paused = screen_where("a pause", &terminal, |screen| screen.contains("PAUSED"));
        traffic.stop().unwrap();
        assert_eq!(terminal.screen(), paused);
        terminal.key("p");
        screen_where("no rate, after the traffic", &terminal, |screen| cell(screen, "CONTAINER", 2) == Some("0"));
        terminal.resize(60, 12);
        screen_where("less on less room", &terminal, |screen| {
            screen.lines().count() == 12
                && screen.contains("PEER")
                && screen.lines().all(|line| line.chars().count() <= 60)
        });
        terminal.resize(80, 24);

        let restored =
            |screen: &str| screen.contains("ended 0") && screen.contains("before") && !screen.contains("PEER");
        terminal.key("q");
        screen_where("the shell's screen", &terminal, restored);

        // `timeout` ends it by SIGTERM, and with --preserve-status tells how it took it.
        terminal.enter("clear; echo before; timeout --foreground --preserve-status 3 overlay top; echo ended $?");
        screen_where("rates again", &terminal, |screen| screen.contains("CONTAINER"));
        screen_where("the shell's screen, after SIGTERM", &terminal, restored);
    });
}

#[test]
fn without_an_agent_top_says_so_and_shows_the_maps_and_without_a_terminal_it_says_what_to_do() {
    on_two_nodes(&settings(Backend::Vxlan), |cluster| {
        cluster.nodes_mut()[0].stop_agent().unwrap();
        let [one, two] = two(cluster);
        let terminal = Terminal::open(one);
        terminal.enter("overlay top");
        let peer = two.address().to_string();
        screen_where("the peer and the lack of an agent", &terminal, |screen| {
            screen.contains("no agent runs") && cell(screen, "PEER", 1) == Some(&peer)
        });
        terminal.key("Escape");

        let refused = one.overlay().arg("top").arg("--run-dir").arg(one.run_dir()).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!((refused.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("must be a terminal; `overlay status`") && refused.stdout.is_empty(), "{said}");
    });
}
