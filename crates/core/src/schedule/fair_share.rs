//! Fair share between projects, and between the users of each: stride scheduling at two levels.
//!
//! An account that gets work advances by the time of that work over its weight, and the least advanced is next. One
//! that had no work starts again level with the others: an unused share is not owed. A *member* is a user of a project.

use std::collections::BTreeMap;

use slab::Slab;

use crate::ids::MemberId;

/// The settings of a project or a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The part of the time relative to others that have work; 1 to [`Share::MAX_WEIGHT`].
    pub weight: u32,
    /// The most slots held at once.
    pub max_slots: Option<u32>,
}

impl Share {
    pub const DEFAULT_WEIGHT: u32 = 100;
    pub const MAX_WEIGHT: u32 = 10_000;
}

impl Default for Share {
    fn default() -> Self {
        Self { weight: Self::DEFAULT_WEIGHT, max_slots: None }
    }
}

/// The fair-share account of a project or of a user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    Project(String),
    User(String),
}

/// The rank of a member among the others, the least first; microseconds of slots at the default weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShareRank {
    project: u64,
    project_place: usize,
    user: u64,
    pub member: MemberId,
}

impl ShareRank {
    /// Returns whether this member is at most `ms` of share behind the earlier one.
    pub fn is_within(self, ms: u64, earlier: Self) -> bool {
        let is_same = self.project_place == earlier.project_place;
        let (own, first) = if is_same { (self.user, earlier.user) } else { (self.project, earlier.project) };
        own <= first.saturating_add(ms.saturating_mul(1000))
    }
}

/// The members of the jobs that the core holds. A member is forgotten with its last job, a project or a user with its
/// last member.
#[derive(Debug, Default)]
pub(crate) struct FairShare {
    members: Slab<Member>,
    /// The members by the places of their project and user.
    by_accounts: BTreeMap<(usize, usize), MemberId>,
    projects: Accounts,
    users: Accounts,
    /// The shares that are not the default one, also of accounts without a job.
    shares: BTreeMap<Account, Share>,
}

/// The projects of the members, or their users.
#[derive(Debug, Default)]
struct Accounts {
    states: Slab<AccountState>,
    places: BTreeMap<Account, usize>,
}

#[derive(Debug)]
struct AccountState {
    account: Account,
    share: Share,
    /// Only of a project: a user advances as a member of each of its projects.
    advanced: u64,
    /// Only of a project: jobs that have not ended.
    jobs: u32,
    slots: u32,
    members: u32,
}

#[derive(Debug)]
struct Member {
    project: usize,
    user: usize,
    advanced: u64,
    /// Jobs that have not ended.
    jobs: u32,
    /// Jobs that the core holds.
    held: u32,
}

impl Accounts {
    fn open(&mut self, account: Account, shares: &BTreeMap<Account, Share>) -> usize {
        *self.places.entry(account).or_insert_with_key(|account| {
            let (account, share) = (account.clone(), shares.get(account).copied().unwrap_or_default());
            self.states.insert(AccountState { account, share, advanced: 0, jobs: 0, slots: 0, members: 0 })
        })
    }

    /// Removes a member of the account.
    fn close(&mut self, place: usize) {
        self.states[place].members -= 1;
        if self.states[place].members == 0 {
            self.places.remove(&self.states.remove(place).account);
        }
    }
}

impl FairShare {
    pub fn set(&mut self, account: Account, share: Share) {
        let weight = share.weight.clamp(1, Share::MAX_WEIGHT);
        let share = Share { weight, ..share };
        let accounts = match account {
            Account::Project(_) => &mut self.projects,
            Account::User(_) => &mut self.users,
        };
        if let Some(place) = accounts.places.get(&account) {
            accounts.states[*place].share = share;
        }
        if share == Share::default() {
            self.shares.remove(&account);
        } else {
            self.shares.insert(account, share);
        }
    }

    /// The member of a new job, which is added if it is not known. [`FairShare::close`] releases it.
    pub fn open(&mut self, project: &str, user: &str) -> MemberId {
        let project = self.projects.open(Account::Project(project.to_owned()), &self.shares);
        let user = self.users.open(Account::User(user.to_owned()), &self.shares);
        let id = *self.by_accounts.entry((project, user)).or_insert_with(|| {
            self.projects.states[project].members += 1;
            self.users.states[user].members += 1;
            MemberId(self.members.insert(Member { project, user, advanced: 0, jobs: 0, held: 0 }))
        });
        self.members[id.0].held += 1;
        id
    }

    /// Removes a job of the member.
    pub fn close(&mut self, id: MemberId) {
        self.members[id.0].held -= 1;
        if self.members[id.0].held == 0 {
            let Member { project, user, .. } = self.members.remove(id.0);
            self.by_accounts.remove(&(project, user));
            self.projects.close(project);
            self.users.close(user);
        }
    }

    /// The member with its project and its user, to change them.
    fn of(&mut self, id: MemberId) -> (&mut Member, &mut AccountState, &mut AccountState) {
        let member = &mut self.members[id.0];
        let (project, user) = (member.project, member.user);
        (member, &mut self.projects.states[project], &mut self.users.states[user])
    }

    /// Counts a job of the member as active. A project or a member that had no active job starts level with the least
    /// advanced of those that have one.
    pub fn enter(&mut self, id: MemberId) {
        let own = self.members[id.0].project;
        let projects = self.projects.states.iter().map(|(_, known)| known).filter(|known| known.jobs > 0);
        let level = projects.map(|known| known.advanced).min().unwrap_or(0);
        let members = self.members.iter().map(|(_, known)| known);
        let beside = members.filter(|known| known.project == own && known.jobs > 0);
        let beside = beside.map(|known| known.advanced).min().unwrap_or(0);
        let (member, project, _) = self.of(id);
        project.advanced = project.advanced.max(level);
        member.advanced = member.advanced.max(beside);
        project.jobs += 1;
        member.jobs += 1;
    }

    /// Counts a job of the member as ended.
    pub fn leave(&mut self, id: MemberId) {
        let (member, project, _) = self.of(id);
        member.jobs = member.jobs.saturating_sub(1);
        project.jobs = project.jobs.saturating_sub(1);
    }

    /// Charges `ms` milliseconds of a slot; a negative number is a refund.
    pub fn charge(&mut self, id: MemberId, ms: i64) {
        let us = ms.saturating_mul(1000 * i64::from(Share::DEFAULT_WEIGHT));
        let weighed = |weight: u32| us / i64::from(weight);
        let (member, project, user) = self.of(id);
        member.advanced = member.advanced.saturating_add_signed(weighed(user.share.weight));
        project.advanced = project.advanced.saturating_add_signed(weighed(project.share.weight));
    }

    pub fn rank(&self, id: MemberId) -> ShareRank {
        let Member { project: project_place, advanced: user, .. } = self.members[id.0];
        let project = self.projects.states[project_place].advanced;
        ShareRank { project, project_place, user, member: id }
    }

    pub fn hold_slot(&mut self, id: MemberId) {
        let (_, project, user) = self.of(id);
        project.slots += 1;
        user.slots += 1;
    }

    /// Releases a slot; returns whether that made room below a cap.
    pub fn free_slot(&mut self, id: MemberId) -> bool {
        let was_full = self.is_full(id);
        let (_, project, user) = self.of(id);
        project.slots = project.slots.saturating_sub(1);
        user.slots = user.slots.saturating_sub(1);
        was_full && !self.is_full(id)
    }

    /// The account of the two that holds all the slots that it may, with its cap.
    pub fn full_account(&self, id: MemberId) -> Option<(&Account, u32)> {
        let member = &self.members[id.0];
        let accounts = [&self.projects.states[member.project], &self.users.states[member.user]];
        let full = |known: &AccountState| known.share.max_slots.filter(|cap| known.slots >= *cap);
        accounts.into_iter().find_map(|known| Some((&known.account, full(known)?)))
    }

    /// Returns whether the project or the user holds all the slots that it may.
    pub fn is_full(&self, id: MemberId) -> bool {
        self.full_account(id).is_some()
    }

    /// Slots that each project and user with a job holds now.
    pub fn slots(&self) -> BTreeMap<Account, u32> {
        let accounts = self.projects.states.iter().chain(&self.users.states);
        accounts.map(|(_, known)| (known.account.clone(), known.slots)).collect()
    }

    /// Panics where jobs are miscounted, or a member is kept that no job has. For tests.
    pub fn check(&self, held: &BTreeMap<MemberId, u32>) {
        let counted = self.members.iter().map(|(id, member)| (MemberId(id), member.held));
        assert_eq!(*held, counted.collect(), "members do not match the jobs");
        let members = self.members.len();
        assert_eq!(self.by_accounts.len(), members, "the index by name is wrong");
        for (kind, Accounts { states, places }) in [("project", &self.projects), ("user", &self.users)] {
            let counted = || states.iter().map(|(_, known)| known.members);
            assert_eq!(counted().sum::<u32>() as usize, members, "a {kind} miscounts its members");
            assert!(counted().all(|members| members > 0), "a {kind} without a member is kept");
            assert_eq!(places.len(), states.len(), "the index by name is wrong");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dispatches frames of 10 ms; returns the number that each account got.
    fn run(shares: &mut FairShare, ids: &[MemberId], frames: usize) -> Vec<usize> {
        let mut got = vec![0; ids.len()];
        for _ in 0..frames {
            let next = (0..ids.len()).min_by_key(|index| shares.rank(ids[*index])).unwrap();
            shares.charge(ids[next], 10);
            got[next] += 1;
        }
        got
    }

    #[test]
    fn time_goes_by_weight_between_projects_and_evenly_between_users_of_one() {
        let mut shares = FairShare::default();
        shares.set(Account::Project("show".into()), Share { weight: 300, max_slots: None });
        let ids = [("show", "ada"), ("show", "bob"), ("ad", "ada")]
            .map(|(project, user)| shares.open(project, user));
        ids.iter().for_each(|id| shares.enter(*id));
        assert_eq!(run(&mut shares, &ids, 400), [150, 150, 100]);
    }

    #[test]
    fn an_account_that_comes_back_is_owed_nothing() {
        let mut shares = FairShare::default();
        let (ada, bob) = (shares.open("", "ada"), shares.open("", "bob"));
        shares.enter(ada);
        run(&mut shares, &[ada], 1000);
        shares.enter(bob);
        assert_eq!(run(&mut shares, &[ada, bob], 100), [50, 50]);
    }

    #[test]
    fn a_cap_is_the_projects_or_the_users() {
        let mut shares = FairShare::default();
        shares.set(Account::User("ada".into()), Share { max_slots: Some(2), ..Share::default() });
        let (show, ad) = (shares.open("show", "ada"), shares.open("ad", "ada"));
        shares.hold_slot(show);
        assert!(!shares.is_full(ad));
        shares.hold_slot(ad);
        assert_eq!(shares.full_account(show), Some((&Account::User("ada".into()), 2)));
        assert!(shares.free_slot(ad));
        assert!(!shares.is_full(show));
    }

    #[test]
    fn an_account_without_a_job_is_forgotten_and_its_share_is_not() {
        let mut shares = FairShare::default();
        let capped = Share { max_slots: Some(1), ..Share::default() };
        shares.set(Account::User("ada".into()), capped);
        for project in 0..1000 {
            let name = format!("show {project}");
            let (ada, bob) = (shares.open(&name, "ada"), shares.open(&name, "bob"));
            assert_eq!(shares.open(&name, "ada"), ada, "two jobs have one account");
            shares.enter(ada);
            shares.hold_slot(ada);
            assert!(shares.is_full(ada) && !shares.is_full(bob), "its share is known again");
            shares.free_slot(ada);
            shares.leave(ada);
            shares.close(ada);
            shares.check(&[(ada, 1), (bob, 1)].into());
            shares.close(bob);
            shares.close(ada);
            shares.check(&BTreeMap::new());
        }
        assert!(shares.slots().is_empty());
        shares.set(Account::User("ada".into()), Share::default());
        assert!(shares.shares.is_empty(), "a default share is not kept");
    }
}
