// What the host says of a container: its processes, its cgroups, its log, the bundle that its runtime was given.
import fs from "node:fs";

const CGROUPS = "/sys/fs/cgroup";
export const exists = (path) => fs.existsSync(path);
export const read = (path) => fs.existsSync(path) ? fs.readFileSync(path, "utf8").trim() : null;
export const list = (path) => fs.existsSync(path) ? fs.readdirSync(path) : [];
export const tree = (path) => fs.existsSync(path) ? fs.readdirSync(path, { recursive: true }).sort() : [];

// ---- processes ----

const TICK_NS = 10_000_000; // USER_HZ is 100 in /proc on every x86

// What these processes, and those they have waited for, had of the CPUs.
export function cpuTimeNs(pids) {
  return pids.reduce((sum, pid) => {
    const fields = read(`/proc/${pid}/stat`).replace(/^.*\) /, "").split(" ");
    return sum + fields.slice(11, 15).reduce((ticks, n) => ticks + Number(n), 0) * TICK_NS;
  }, 0);
}
export const affinities = (pid) => list(`/proc/${pid}/task`).map((task) =>
  /^Cpus_allowed_list:\s*(.*)$/m.exec(read(`/proc/${pid}/task/${task}/status`))[1]);
export const isQemu = (pid) => fs.readlinkSync(`/proc/${pid}/exe`).includes("/qemu-system-");

// ---- cgroups: of version 1, where every controller has a hierarchy, or 2 ----

const unified = fs.existsSync(`${CGROUPS}/cgroup.controllers`);
function cgroupOf(pid, controller) {
  const lines = read(`/proc/${pid}/cgroup`).split("\n").map((line) => line.split(":"));
  const [, , path] = lines.find(([, names]) => unified ? names === "" : names.split(",").includes(controller));
  return { path, dir: unified ? CGROUPS + path : `${CGROUPS}/${controller}${path}` };
}
export const cgroupPath = (pid) => cgroupOf(pid, "cpuacct").path;
export const cgroupPids = (pid) => read(`${cgroupOf(pid, "cpuacct").dir}/cgroup.procs`).split("\n").map(Number).sort((a, b) => a - b);
export function memoryPeak(pid) {
  const { dir } = cgroupOf(pid, "memory");
  return Number(read(`${dir}/${unified ? "memory.peak" : "memory.max_usage_in_bytes"}`));
}
// The limits that UpdateContainerResources speaks of, as the kernel has them.
export function limits(pid) {
  const files = unified ? [["cpu", "cpu.weight"], ["cpu", "cpu.max"], ["cpuset", "cpuset.cpus"]]
    : [["cpu", "cpu.shares"], ["cpu", "cpu.cfs_quota_us"], ["cpu", "cpu.cfs_period_us"], ["cpuset", "cpuset.cpus"]];
  return files.map(([controller, file]) => read(`${cgroupOf(pid, controller).dir}/${file}`));
}
// The limits of a container with these resources.
export const limitsOf = ({ shares, quota, period, cpus }) =>
  unified ? [String(1 + Math.floor((shares - 2) * 9999 / 262142)), `${quota} ${period}`, cpus]
    : [String(shares), String(quota), String(period), cpus];
// Directories of containers' cgroups that are there, of any hierarchy.
export const cgroupsNamed = (id) => (unified ? [CGROUPS] : list(CGROUPS).map((c) => `${CGROUPS}/${c}`))
  .map((dir) => `${dir}/k8s.io/${id}`).filter((dir) => fs.existsSync(dir));

// ---- logs ----

// CRI's form, "TIME STREAM TAG TEXT": the texts, or an error that shows the first line of another form.
export function logged(path) {
  const lines = (read(path) ?? "").split("\n").filter((line) => line !== "");
  return lines.map((line) => {
    const m = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(?:Z|[+-]\d\d:\d\d) stdout F (.*)$/.exec(line);
    if (!m) throw new Error(`no line of a CRI log: ${line}`);
    return m[1].replace(/\r$/, "");
  });
}
