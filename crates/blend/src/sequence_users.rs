//! The datablocks that show image sequences, and the rule of each, gathered on the way through a file.

use std::{collections::HashSet, path::PathBuf};

use foldhash::HashMap;

use crate::{
    dna::View,
    external::ExternalFile,
    graph::DatablockGraph,
    sequence::{Clip, NumberedName, SequenceRule, SequenceUser, VolumeMode},
};

/// Users of sequences that are kept.
const MAX_USERS: usize = 100_000;
/// Blocks of one datablock that are kept until its end.
const MAX_BLOCKS: usize = 200_000;
/// Actions of one datablock: one for itself, one for its nodes.
const MAX_ACTIONS: usize = 16;
const MUTED: i64 = 1 << 9;
/// Of a scene.
const COMPOSITING: i64 = 1 << 6;

/// Datablocks that may show a sequence. Their drivers are read.
const OWNERS: [[u8; 4]; 9] = [
    *b"MA\0\0", *b"WO\0\0", *b"LA\0\0", *b"NT\0\0", *b"SC\0\0", *b"TE\0\0", *b"LS\0\0", *b"VO\0\0",
    *b"CF\0\0",
];

/// Structs that are of use here. Nodes are read as parts of their trees too.
pub(crate) const STRUCTS: [&str; 11] = [
    "bNode",
    "bNodeSocket",
    "bNodeSocketValueImage",
    "bNodeSocketValueInt",
    "bNodeLink",
    "NodeTexImage",
    "NodeTexEnvironment",
    "ImageUser",
    "AnimData",
    "FCurve",
    "NlaTrack",
];

/// The settings that an animation moves.
#[derive(Default, Clone, Copy)]
struct Moves {
    frames: bool,
    inputs: bool,
}

impl Moves {
    const ALL: Self = Self { frames: true, inputs: true };

    fn of_path(path: &[u8]) -> Self {
        let holds = |part: &[u8]| memchr::memmem::find(path, part).is_some();
        Self { frames: holds(b"frame") || holds(b"cyclic") || holds(b"sequence"), inputs: holds(b"inputs[") }
    }

    fn and(&mut self, other: Self) {
        self.frames |= other.frames;
        self.inputs |= other.inputs;
    }
}

/// A user whose rule is known but for what moves it.
struct UserDraft {
    /// The address of the datablock that shows the sequence.
    old: u64,
    /// The address of the image or clip.
    target: u64,
    by: String,
    rule: Rule,
    /// Actions that move its settings, and what else does.
    actions: Vec<u64>,
    moves: Moves,
}

enum Rule {
    Image(SequenceRule),
    Input(SequenceRule),
    /// A movie clip in the compositor.
    Clip,
    /// And in the sequencer.
    Strip {
        begin: i64,
        left: i64,
        right: i64,
        skipped: i64,
    },
    Unknown,
}

/// A node of interest.
struct Node {
    kind: Kind,
    id: Option<u64>,
    storage: Option<u64>,
    inputs: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    Clip,
    GeometryImage,
    SceneTime,
}

struct Socket {
    next: Option<u64>,
    is_image: bool,
    is_frame: bool,
    value: Option<u64>,
}

/// Blocks of the present datablock.
#[derive(Default)]
struct Current {
    old: u64,
    by: String,
    /// Nothing of it is drawn.
    off: bool,
    nodes: Vec<Node>,
    /// Nodes that tell the scene's time.
    times: HashSet<u64>,
    users: HashMap<u64, SequenceRule>,
    /// Of nodes that read an image by its number.
    sockets: HashMap<u64, Socket>,
    images: HashMap<u64, u64>,
    numbers: HashMap<u64, i64>,
    /// To a socket: from a node and its socket.
    links: HashMap<u64, (u64, u64)>,
    in_geometry_image: bool,
    in_scene_time: bool,
    has_geometry_image: bool,
    /// The addresses of animations' paths.
    paths: HashSet<u64>,
    is_action: bool,
    actions: Vec<u64>,
    moves: Moves,
    own: Vec<UserDraft>,
}

impl Current {
    fn blocks(&self) -> usize {
        self.nodes.len() + self.users.len() + self.sockets.len() + self.numbers.len() + self.links.len()
    }
}

#[derive(Default)]
pub(crate) struct SequenceUsers {
    current: Option<Current>,
    found: Vec<UserDraft>,
    clips: HashMap<u64, Clip>,
    /// Actions that move a user, and what they move.
    actions: HashMap<u64, Option<Moves>>,
}

impl SequenceUsers {
    /// A new datablock begins.
    pub fn datablock(&mut self, code: [u8; 4], old: u64, name: &[u8], view: &View<'_>) {
        let is_action = &code == b"AC\0\0" && self.actions.contains_key(&old);
        let by = String::from_utf8_lossy(name).into_owned();
        if &code == b"MC\0\0" {
            self.clip(old, view);
        }
        if !is_action && !OWNERS.contains(&code) {
            return;
        }
        let off = match &code {
            // In 5.0 a group of its own composites; what the scene holds is a copy for older Blenders.
            b"SC\0\0" => {
                view.place("compositing_node_group").is_some()
                    || view.int("use_nodes") == Some(0)
                    || view.int("r.scemode").is_some_and(|mode| mode & COMPOSITING == 0)
            }
            b"MA\0\0" | b"WO\0\0" | b"LA\0\0" | b"TE\0\0" | b"LS\0\0" => view.int("use_nodes") == Some(0),
            _ => false,
        };
        let mut current = Current { old, by, off, is_action, ..Current::default() };
        match &code {
            b"TE\0\0" => texture(&mut current, view),
            b"VO\0\0" => volume(&mut current, view),
            b"CF\0\0" => cache(&mut current, view),
            _ => {}
        }
        self.current = Some(current);
    }

    fn clip(&mut self, old: u64, view: &View<'_>) {
        let name = view.bytes("name").unwrap_or_default();
        let name = name.rsplit(|byte| matches!(byte, b'/' | b'\\')).next().unwrap_or_default();
        let int = |field: &'static str| view.int(field).unwrap_or(0);
        if let Some(first) = NumberedName::of_picture(name).number {
            let (start, offset, length) = (int("start_frame"), int("frame_offset"), int("len"));
            self.clips.insert(old, Clip { first, start, offset, length });
        }
    }

    /// A strip of the sequencer.
    pub fn strip(&mut self, view: &View<'_>) {
        const MUTED: i64 = 1 << 5;
        let (Some(target), Some(current)) = (view.pointer("clip"), &mut self.current) else { return };
        let int = |field: &'static str| view.float(field).unwrap_or(0.0) as i64;
        if int("flag") & MUTED != 0 || current.own.len() >= MAX_BLOCKS {
            return;
        }
        let (begin, length) = (int("start"), int("len"));
        // Until 3.2 a still before or after the content had fields of its own.
        let left = begin + int("startofs") - int("startstill");
        let right = begin + length - int("endofs") + int("endstill");
        let speed = view.float("speed_factor").unwrap_or(1.0);
        let is_plain = (speed == 1.0 || speed == 0.0) && int("retiming_keys_num") <= 2;
        let rule = if is_plain {
            Rule::Strip { begin, left, right, skipped: int("anim_startofs") }
        } else {
            Rule::Unknown
        };
        let by = current.by.clone();
        let (old, actions, moves) = (current.old, Vec::new(), Moves::default());
        current.own.push(UserDraft { old, target, by, rule, actions, moves });
    }

    /// The text at this address is the path of an animation.
    pub fn takes_path(&self, old: u64) -> bool {
        self.current.as_ref().is_some_and(|current| current.paths.contains(&old))
    }

    pub fn path(&mut self, old: u64, text: &[u8]) {
        if let Some(current) = &mut self.current {
            current.paths.remove(&old);
            current.moves.and(Moves::of_path(text));
        }
    }

    /// A block of one of the [`STRUCTS`] has to be read.
    pub fn wants(&self, name: &[u8]) -> bool {
        let Some(current) = &self.current else { return false };
        if current.blocks() > MAX_BLOCKS {
            return false;
        }
        match name {
            b"AnimData" | b"NlaTrack" => !current.is_action,
            b"FCurve" => true,
            _ if current.is_action || current.off => false,
            b"bNodeSocket" => current.in_geometry_image || current.in_scene_time,
            b"bNodeSocketValueImage" | b"bNodeSocketValueInt" => current.in_geometry_image,
            b"bNodeLink" => current.has_geometry_image,
            _ => true,
        }
    }

    pub fn block(&mut self, old: u64, view: &View<'_>) {
        let Some(current) = &mut self.current else { return };
        match view.struct_name() {
            b"AnimData" => {
                current.actions.extend(view.pointer("action"));
                if view.pointer("nla_tracks.first").is_some() || current.actions.len() > MAX_ACTIONS {
                    current.actions.clear();
                    current.moves.and(Moves::ALL);
                }
            }
            b"FCurve" if current.paths.len() >= MAX_BLOCKS => current.moves.and(Moves::ALL),
            b"FCurve" => current.paths.extend(view.pointer("rna_path")),
            b"bNode" => node(current, old, view),
            b"NodeTexImage" | b"NodeTexEnvironment" => {
                current.users.insert(
                    old,
                    image_user(view, "iuser.sfra", "iuser.frames", "iuser.offset", "iuser.cycl"),
                );
            }
            b"ImageUser" => {
                current.users.insert(old, image_user(view, "sfra", "frames", "offset", "cycl"));
            }
            b"bNodeSocket" => {
                let name = view.bytes("identifier").unwrap_or_default();
                let (is_image, is_frame) = (name == b"Image", name == b"Frame");
                let (next, value) = (view.pointer("next"), view.pointer("default_value"));
                current.sockets.insert(old, Socket { next, is_image, is_frame, value });
            }
            b"bNodeSocketValueImage" => {
                if let Some(image) = view.pointer("value") {
                    current.images.insert(old, image);
                }
            }
            b"bNodeSocketValueInt" => {
                current.numbers.insert(old, view.int("value").unwrap_or(0));
            }
            b"bNodeLink" => {
                if let (Some(to), Some(node), Some(from)) =
                    (view.pointer("tosock"), view.pointer("fromnode"), view.pointer("fromsock"))
                {
                    current.links.insert(to, (node, from));
                }
            }
            _ => {}
        }
    }

    /// A datablock of this kind has to be read to its end.
    pub fn is_owner(code: [u8; 4]) -> bool {
        OWNERS.contains(&code) || &code == b"MC\0\0"
    }

    /// Ends the present datablock. Returns how many bytes stay of it.
    pub fn flush(&mut self) -> usize {
        let Some(mut current) = self.current.take() else { return 0 };
        if current.is_action {
            self.actions.insert(current.old, Some(current.moves));
            return 0;
        }
        let mut found = std::mem::take(&mut current.own);
        found.extend(current.nodes.iter().filter_map(|node| current.found(node)));
        found.truncate(MAX_USERS.saturating_sub(self.found.len()));
        for one in &mut found {
            one.moves = current.moves;
            one.actions.clone_from(&current.actions);
        }
        if !found.is_empty() {
            for action in &current.actions {
                self.actions.entry(*action).or_default();
            }
        }
        let cost =
            found.iter().map(|one| size_of::<UserDraft>() + one.by.len() + 8 * one.actions.len()).sum();
        self.found.append(&mut found);
        cost
    }

    /// Gives each file of `external` its users; `olds` tells where in memory the datablock of each was. Those of images
    /// and clips in libraries are returned, with the library as the file names it.
    pub fn finish(
        self,
        external: &mut [ExternalFile],
        olds: &[u64],
        graph: &DatablockGraph,
    ) -> Vec<LinkedUser> {
        let mut by_old: HashMap<u64, Vec<SequenceUser>> = HashMap::default();
        let mut linked = Vec::new();
        for one in &self.found {
            let rule = self.rule(one);
            let user = SequenceUser { by: one.by.clone(), rule, old: one.old, holder: PathBuf::new() };
            match graph.linked(one.target) {
                Some(link) => {
                    let library = graph.library_of(link).unwrap_or_default().to_vec();
                    linked.push(LinkedUser { library, owner: link.full_name().to_owned(), user });
                }
                None => by_old.entry(one.target).or_default().push(user),
            }
        }
        for (file, old) in external.iter_mut().zip(olds) {
            if file.sequence && !file.packed {
                // The names of an image's views follow its own.
                file.shown_by = by_old.remove(old).unwrap_or_default();
            }
        }
        linked
    }

    fn rule(&self, found: &UserDraft) -> SequenceRule {
        let mut moves = found.moves;
        for action in &found.actions {
            // One in a library is not seen.
            moves.and(self.actions.get(action).copied().flatten().unwrap_or(Moves::ALL));
        }
        let clip = self.clips.get(&found.target).copied();
        match found.rule {
            Rule::Image(rule) if !moves.frames => rule,
            Rule::Input(rule) if !moves.inputs => rule,
            Rule::Clip => clip.map_or(SequenceRule::Unknown, SequenceRule::Clip),
            Rule::Strip { begin, left, right, skipped } => match clip {
                Some(clip) => SequenceRule::ClipStrip { clip, begin, left, right, skipped },
                None => SequenceRule::Unknown,
            },
            Rule::Image(_) | Rule::Input(_) | Rule::Unknown => SequenceRule::Unknown,
        }
    }
}

/// A user of a sequence that a library names.
pub(crate) struct LinkedUser {
    /// As the file names it.
    pub library: Vec<u8>,
    /// The datablock in the library, with its code of two letters.
    pub owner: String,
    pub user: SequenceUser,
}

impl Current {
    fn found(&self, node: &Node) -> Option<UserDraft> {
        let (target, rule) = match node.kind {
            Kind::Image => (node.id?, Rule::Image(*self.users.get(&node.storage?)?)),
            Kind::Clip => (node.id?, Rule::Clip),
            Kind::GeometryImage => self.geometry_image(node)?,
            Kind::SceneTime => return None,
        };
        let (actions, moves) = Default::default();
        Some(UserDraft { old: self.old, target, by: self.by.clone(), rule, actions, moves })
    }

    fn geometry_image(&self, node: &Node) -> Option<(u64, Rule)> {
        let (mut at, mut image, mut rule) = (node.inputs, None, Rule::Unknown);
        // A list that leads back ends as well.
        for _ in 0..16 {
            let Some((old, socket)) = at.and_then(|old| Some((old, self.sockets.get(&old)?))) else { break };
            let link = self.links.get(&old);
            if socket.is_image && link.is_none() {
                image = socket.value.and_then(|value| self.images.get(&value)).copied();
            }
            if socket.is_frame {
                rule = match link {
                    Some((from, socket)) if self.is_scene_frame(*from, *socket) => {
                        Rule::Input(SequenceRule::SceneTime)
                    }
                    Some(_) => Rule::Unknown,
                    None => {
                        let number =
                            socket.value.and_then(|value| self.numbers.get(&value)).copied().unwrap_or(0);
                        Rule::Input(SequenceRule::Input { number })
                    }
                };
            }
            at = socket.next;
        }
        Some((image?, rule))
    }

    fn is_scene_frame(&self, node: u64, socket: u64) -> bool {
        self.times.contains(&node) && self.sockets.get(&socket).is_some_and(|socket| socket.is_frame)
    }
}

fn node(current: &mut Current, old: u64, view: &View<'_>) {
    current.in_geometry_image = false;
    current.in_scene_time = false;
    let kind = match view.bytes("idname").unwrap_or_default() {
        b"ShaderNodeTexImage"
        | b"ShaderNodeTexEnvironment"
        | b"CompositorNodeImage"
        | b"TextureNodeImage" => Kind::Image,
        b"CompositorNodeMovieClip" | b"CompositorNodeKeyingScreen" => Kind::Clip,
        b"GeometryNodeImageTexture" => Kind::GeometryImage,
        b"GeometryNodeInputSceneTime" => Kind::SceneTime,
        _ => return,
    };
    if view.int("flag").is_some_and(|flag| flag & MUTED != 0) {
        return;
    }
    current.in_geometry_image = kind == Kind::GeometryImage;
    current.in_scene_time = kind == Kind::SceneTime;
    current.has_geometry_image |= kind == Kind::GeometryImage;
    let (id, storage, inputs) = (view.pointer("id"), view.pointer("storage"), view.pointer("inputs.first"));
    if kind == Kind::SceneTime {
        current.times.insert(old);
    } else {
        current.nodes.push(Node { kind, id, storage, inputs });
    }
}

fn image_user(
    view: &View<'_>,
    start: &'static str,
    duration: &'static str,
    offset: &'static str,
    cyclic: &'static str,
) -> SequenceRule {
    let int = |field: &'static str| view.int(field).unwrap_or(0);
    SequenceRule::Image {
        start: int(start),
        duration: int(duration),
        offset: int(offset),
        cyclic: int(cyclic) != 0,
    }
}

fn texture(current: &mut Current, view: &View<'_>) {
    const IMAGE: i64 = 8;
    if let Some(target) = view.pointer("ima").filter(|_| view.int("type") == Some(IMAGE)) {
        let rule = image_user(view, "iuser.sfra", "iuser.frames", "iuser.offset", "iuser.cycl");
        own(current, target, rule);
    }
}

fn volume(current: &mut Current, view: &View<'_>) {
    let int = |field: &'static str| view.int(field).unwrap_or(0);
    let mode = match int("sequence_mode") {
        0 => VolumeMode::Clip,
        1 => VolumeMode::Extend,
        2 => VolumeMode::Repeat,
        _ => VolumeMode::PingPong,
    };
    let (start, duration, offset) = (int("frame_start"), int("frame_duration"), int("frame_offset"));
    own(current, current.old, SequenceRule::Volume { start, duration, offset, mode });
}

fn cache(current: &mut Current, view: &View<'_>) {
    let instead = view.int("override_frame").is_some_and(|flag| flag != 0);
    let frame = view.float("frame").filter(|_| instead).map(|frame| frame as i64);
    own(current, current.old, SequenceRule::Cache { frame });
}

fn own(current: &mut Current, target: u64, rule: SequenceRule) {
    let (actions, moves) = Default::default();
    let (old, by) = (current.old, current.by.clone());
    current.own.push(UserDraft { old, target, by, rule: Rule::Image(rule), actions, moves });
}
