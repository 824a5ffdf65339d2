"""Compares what the client did with what the observer printed. Run alone, it tests itself."""

import json
from collections import Counter


def parse(text):
    """The observer's JSON lines; a line that is none is reported by its text."""
    lines, problems = [], []
    for line in text.splitlines():
        try:
            value = json.loads(line)
            lines.append(value if isinstance(value, dict) else {"kind": None})
        except ValueError:
            problems.append(f"not a JSON line: {line[:120]}")
    return lines, problems


def of_kind(lines, kind):
    return [line for line in lines if line.get("kind") == kind]


def names(host, request):
    master = f"{host}-master({request['master']})"
    return master, f"{master}-child({request['worker']})"


def exchange(segment):
    """What one segment says of its request: instance, operation, method, status, the scheme of a URL that ends in the path."""
    span = segment["spans"][-1] if segment.get("spans") else {"operation": None}
    tags = dict(map(tuple, span.get("tags", [])))
    operation = span.get("operation")
    url = tags.get("http.url") or ""
    return (segment.get("instance"), operation, tags.get("http.method"), tags.get("http.status_code"),
            url.split(":")[0] if url.endswith(str(operation)) else url)


def differences(requests, text, host, service):
    """Sentences, one for each way in which the observer's account of a service differs from the client's."""
    lines, problems = parse(text)
    lines = [line for line in lines if line.get("service", service) == service]
    if not lines or lines[0].get("kind") != "ready":
        problems.append("the first line is not the ready line")
    if not lines or lines[-1].get("kind") != "stats":
        problems.append("the last line is not the stats line")

    truth = Counter(
        (names(host, request)[1], request["path"], request["method"], str(request["status"]), request["scheme"])
        for request in requests
    )
    seen = Counter(exchange(segment) for segment in of_kind(lines, "segment"))
    for one, count in sorted((truth - seen).items(), key=str):
        problems.append(f"missing {count} x {one}")
    for one, count in sorted((seen - truth).items(), key=str):
        problems.append(f"not asked for {count} x {one}")

    roles = {line.get("instance"): line.get("role") for line in of_kind(lines, "instance")}
    gone = Counter(line.get("instance") for line in of_kind(lines, "gone"))
    for request in requests:
        for name, role in zip(names(host, request), ("master", "worker")):
            if roles.get(name) != role:
                problems.append(f"{name} is reported as {roles.get(name)}, not as {role}")
    for name in roles:
        if gone[name] != 1:
            problems.append(f"{name} is reported gone {gone[name]} times")

    for stats in of_kind(lines, "stats"):
        lost = {reason: count for reason, count in stats.get("drops", {}).items() if count}
        if lost:
            problems.append(f"drops {lost}")
    return list(dict.fromkeys(problems))


def lives(truth, text):
    """Sentences, one for each way in which roles, ends and upgrades differ from the truth."""
    lines, problems = parse(text)[0], []
    roles = {}
    for line in of_kind(lines, "process"):
        roles.setdefault(line["pid"], []).append(line["role"])
    for pid, wanted in truth.roles.items():
        seen = roles.pop(pid, [])
        if seen != [*wanted, None]:
            problems.append(f"process {pid} is reported as {seen}, not as {[*wanted, None]}")
    problems += [f"process {pid} is reported as {seen} and is not gunicorn's" for pid, seen in roles.items()]

    events = {line["uuid"]: line for line in of_kind(lines, "event")}.values()  # of each the last message
    causes = {}
    for event in events:
        if event["name"] == "Exit":
            causes.setdefault(int(event["parameters"]["pid"]), []).append(event["parameters"].get("cause"))
    for pid, wanted in truth.causes.items():
        seen = causes.pop(pid, [])
        if seen != [wanted]:
            problems.append(f"the end of {pid} ({'/'.join(truth.roles[pid])}) has the cause {seen}, not {wanted}")
    problems += [f"an end of {pid} with the cause {seen} is reported" for pid, seen in causes.items()]

    outcomes = [event["parameters"].get("outcome") for event in events if event["name"] == "Upgrade"]
    if outcomes != truth.upgrades:
        problems.append(f"upgrades: {outcomes}, not {truth.upgrades}")
    return problems


def variants(text):
    """Probe to variant, from the ready line."""
    ready = of_kind(parse(text)[0], "ready")
    return ready[0].get("variants", {}) if ready else {}


def check_this_file():
    request = {"path": "/plain/1", "method": "GET", "status": 200, "scheme": "http", "master": 10, "worker": 11}
    tags = [["http.method", "GET"], ["http.url", "http://h/plain/1"], ["http.status_code", "200"]]
    master, worker = "h-master(10)", "h-master(10)-child(11)"
    segment = {"kind": "segment", "instance": worker, "spans": [{"operation": "/plain/1", "tags": tags}]}
    good = [
        {"kind": "ready", "variants": {"fork": "kprobe"}},
        {"kind": "instance", "instance": master, "role": "master"},
        {"kind": "instance", "instance": worker, "role": "worker"},
        segment,
        {"kind": "gone", "instance": worker},
        {"kind": "gone", "instance": master},
        {"kind": "stats", "drops": {"ring full": 0}},
    ]

    def verdict(lines):
        return differences([request], "\n".join(map(json.dumps, lines)), "h", "s")

    assert verdict(good) == [], verdict(good)
    assert variants(json.dumps(good[0])) == {"fork": "kprobe"}
    assert any("missing 1" in one for one in verdict([line for line in good if line is not segment]))
    assert any("not asked for 1" in one for one in verdict([*good[:4], segment, *good[4:]]))
    assert any("missing 1" in one for one in verdict([json.loads(json.dumps(line).replace("http:", "https:")) for line in good]))
    assert any("drops" in one for one in verdict([*good[:-1], {"kind": "stats", "drops": {"ring full": 2}}]))
    assert any("gone 0 times" in one for one in verdict([line for line in good if line["kind"] != "gone"]))
    assert any("first line" in one for one in verdict(good[1:]))
    assert any("not as worker" in one for one in verdict([line for line in good if line is not good[2]]))
    assert any("not a JSON line" in one for one in differences([request], "thread panicked", "h", "s"))
    check_lives()


def check_lives():
    class Truth:
        roles, causes, upgrades = {10: ["master"], 11: ["worker"]}, {11: "killed"}, []

    def process(pid, role):
        return {"kind": "process", "pid": pid, "role": role}

    def end(cause, pid=11):
        return {"kind": "event", "name": "Exit", "uuid": f"u{pid}", "parameters": {"pid": str(pid), "cause": cause}}

    good = [process(10, "master"), process(11, "worker"), end("?"), end("killed"), process(11, None), process(10, None)]

    def verdict(lines):
        return lives(Truth, "\n".join(map(json.dumps, lines)))

    assert verdict(good) == [], verdict(good)
    assert any("process 11 is reported" in one for one in verdict(good[:-2]))
    assert any("not gunicorn's" in one for one in verdict([*good, process(12, "worker")]))
    assert any("has the cause" in one for one in verdict([*good, end("oom")]))
    assert any("an end of 12" in one for one in verdict([*good, end("oom", 12)]))
    assert any("upgrades" in one for one in verdict([*good, {
        "kind": "event", "name": "Upgrade", "uuid": "v", "parameters": {"outcome": "failed"}}]))


if __name__ == "__main__":
    check_this_file()
