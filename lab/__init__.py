"""A private small cloud on loopback, for the demo, the tests and the benchmarks. Nothing in the product imports it.

    from lab.libvirt_host import LibvirtHost, Guest

    host = LibvirtHost(); host.start(); ...; host.stop()     or     with LibvirtHost() as host:
        host.uri                    "qemu+unix:///session?socket=/tmp/eva-lab-.../libvirt-sock"
        host.pid                    libvirtd's pid (as nobody when we are root)
        host.freeze(), host.thaw()  SIGSTOP and SIGCONT to libvirtd
        host.kill(), host.restart() kill -9 of libvirtd, guests live on; started again on the same socket
        host.connection             this process's own libvirt.virConnect (opened on demand; it blocks while libvirtd is frozen)
        host.define_guest(...), host.define(xml)                 -> Guest, not started
        host.start_guest(name=None, uuid=None, resource_id=None, wait=True) -> Guest   (2 to 3 s: booted to its serial shell)
        guest.uuid, guest.name, guest.resource_id, guest.qemu_pid, guest.domain (virDomain, looked up by UUID)
        guest.serial                a Transcript of everything the guest ever sent on the serial line, read by nobody's console:
                                    .text(), .size(), .wait_for("EVA guest ready", after=offset, timeout=30), await .seen(...)
        guest.start(), .wait_ready(), .destroy(), .undefine(), .discard() (both, in any state), .pause(), .resume()
        guest.reset()                                            booted again after 6 to 7 s: TCG is slow to write over code
        guest.run("ip link") -> str    types a command on the serial line (takes the console for that time), gives its output
        guest.set_resource_id(text | None)                       writes or takes away the metadata element on the live domain
    All blocking calls; stop() and the end of the parent leave no process and no file.

    from lab.domain import domain_xml                            the XML alone, to define variants by hand
    from lab.mosquitto import Mosquitto                          .start() .stop() .kill() .port; MQTT 5 on loopback
    from lab.certificates import Authority                       .ca, .server() and .client(cn) -> KeyPair(certificate, key)
    from lab.process import Program                              a daemon with PDEATHSIG, its output in a file:
        Program(argv, log, notify=True).start(); await .notified("READY=1"); await .stopped()   (or wait_notified, stop, kill)
    from lab.ports import free_port
    from lab.browser import Browser                              Chromium by Playwright, which believes the lab's authority only;
        async with Browser(cloud.authority.ca) as browser: page = await browser.window()     its head says the rest

Fixtures (tests/conftest.py): `libvirt_host` and `shared_guest` (session; do not stop, pause or re-define that one), `guest` and
`other_guest` (a fresh one for each test), `mosquitto` (function), `certificates` (session).

In the guest: busybox as root on ttyS0 and tty1, `lo` only, 80x25 VGA text; prints "EVA guest ready" when the serial shell is
there; Ctrl+Alt+Del prints "ctrl-alt-del" on the serial line and reboots; `poweroff` stops the domain. Commands of ours in it:
`hear` (each line read at its terminal told on the serial line, in hex; on the screen by `openvt -c 2 -s hear`), `password` (asks
without an echo, keeps it in /run/password), `hostile` (all that a guest may try on a terminal, and what it was answered),
`flicker` (the whole screen redrawn without an end). `start_guest(arguments="keymap=de")`: with a German keyboard;
`arguments="bootmenu=3"`: waits 3 s for a key at its start, and tells on the serial line which.
"""
