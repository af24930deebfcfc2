//! The report as pictures: bars of the data path's rates, one file for each ground.

use std::{fs, path::Path};

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;

use crate::{
    ground::{GROUNDS, Ground},
    report::{Datapath, Row},
    subject::SUBJECTS,
    workload::{WORKLOADS, Workload},
};

/// Size of a picture in pixels, and of what stands beside the bars.
const SIZE: (u32, u32) = (1100, 460);
const MARGIN: i32 = 12;
const LABELS: u32 = 40;

/// Room for the names of the bars, as a part of a group's width.
const LEGEND: f64 = 0.7;

/// Bars of the subjects in this order; the others have none, to keep the picture readable.
const COLOURS: [(&str, RGBColor); 10] = [
    ("bare", RGBColor(200, 200, 200)),
    ("plain", RGBColor(130, 130, 130)),
    ("kernel-vxlan", RGBColor(230, 159, 0)),
    ("tun-proxy", RGBColor(240, 228, 66)),
    ("overlay-vxlan", RGBColor(0, 114, 178)),
    ("overlay-vxlan-slow", RGBColor(86, 180, 233)),
    ("overlay-udp", RGBColor(0, 120, 90)),
    ("overlay-udp-slow", RGBColor(120, 200, 170)),
    ("kernel-vxlan+masq", RGBColor(180, 110, 0)),
    ("overlay-vxlan+masq", RGBColor(0, 60, 110)),
];

/// Draws a file `datapath-UNDERLAY-CPUS.svg` into `directory` for each ground that was measured, and removes the others.
///
/// # Errors
///
/// When a file cannot be written.
pub(crate) fn draw(datapath: &Datapath, directory: &Path) -> Result<()> {
    for ground in GROUNDS {
        let (underlay, cpus) = (ground.underlay.to_string(), ground.layout.to_string());
        let rows: Vec<_> = datapath.rows.iter().filter(|row| row.underlay == underlay && row.cpus == cpus).collect();
        let path = directory.join(format!("datapath-{underlay}-{cpus}.svg"));
        if !rows.is_empty() {
            bars(ground, &rows, &path).map_err(|error| anyhow!("draw {}: {error}", path.display()))?;
        } else if path.exists() {
            // Of an earlier run, whose figures the report no longer has.
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// One group of bars for each workload: the ratio of each subject to plain routing.
fn bars(ground: Ground, rows: &[&Row], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let ratio = |subject: &str, workload: &Workload| {
        let workload = workload.to_string();
        let find = |subject: &str| rows.iter().find(|row| row.subject == subject && row.workload == workload);
        find(subject)?.rate.ratio_to(&find("plain")?.rate)
    };
    let all = WORKLOADS.iter().flat_map(|workload| COLOURS.iter().filter_map(|(name, _)| ratio(name, workload)));
    let most = all.fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(&root)
        .caption(
            format!("rate over plain routing, underlay {}, CPUs {}", ground.underlay, ground.layout),
            ("sans-serif", 20),
        )
        .margin(MARGIN)
        .x_label_area_size(LABELS)
        .y_label_area_size(LABELS)
        .build_cartesian_2d(0.0..WORKLOADS.len() as f64 + LEGEND, 0.0..most)?;
    chart.configure_mesh().disable_x_mesh().x_labels(0).y_labels(8).draw()?;
    let width = 0.9 / COLOURS.len() as f64;
    for (place, (name, colour)) in COLOURS.iter().enumerate().filter(|(_, (name, _))| is_measured(name, rows)) {
        let bar = |(group, workload): (usize, &Workload)| {
            let left = group as f64 + 0.05 + place as f64 * width;
            Some(Rectangle::new([(left, 0.0), (left + width * 0.9, ratio(name, workload)?)], colour.filled()))
        };
        let bars: Vec<_> = WORKLOADS.iter().enumerate().filter_map(bar).collect();
        let key = |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled());
        chart.draw_series(bars)?.label(*name).legend(key);
    }
    chart.draw_series([PathElement::new([(0.0, 1.0), (WORKLOADS.len() as f64, 1.0)], BLACK)])?;
    for (group, workload) in WORKLOADS.iter().enumerate() {
        let name = Text::new(workload.to_string(), (group as f64 + 0.4, most * 0.97), ("sans-serif", 16));
        chart.draw_series([name])?;
    }
    let mut labels = chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperRight).background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}

fn is_measured(name: &str, rows: &[&Row]) -> bool {
    SUBJECTS.iter().any(|subject| subject.name == name) && rows.iter().any(|row| row.subject == name)
}
