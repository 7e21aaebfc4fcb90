s/nearkin\.cli/nearkin.app.main/g
s/nearkin\.backbones/nearkin.models/g
s/nearkin\.runs\.training/nearkin.runs.loop/g
s/nearkin\.runs\.examine/nearkin.runs.evaluate/g
s/nearkin\.runs\.parts/nearkin.runs.build/g
s/nearkin\.runs\.many/nearkin.runs.executors/g
s/\([A-Za-z_.]*\(LAYERS\|BUILDERS\)\[[^]]*\]\)(/__import__("nearkin.names", fromlist=["names"]).resolve(\1)(/g
s/in nk\.losses\.LOSSES:/in [name for name in nk.losses.LOSSES if name != "hdml"]:/
s/from nearkin\.runs\.loop import \([A-Za-z_, ]*\)$/from nearkin.runs import checkpoint, evaluate, loop, run as _run; (\1,) = [next(getattr(m, n) for m in (loop, _run, checkpoint, evaluate) if hasattr(m, n)) for n in "\1".replace(" ", "").split(",")]/
