import asyncio,time,sys,resource,tempfile
from pathlib import Path
from infra.table.sqlite import SqliteTable
from tests.router.running import *
n=int(sys.argv[1])
async def main():
    d=tempfile.mkdtemp()
    t=SqliteTable(Path(d)/"t.db", time.time)
    r=Running(t,time.time)
    g=graph(*[step(f"s{i}", *([f"s{(i-10)//3}"] if i>=10 else []), attempts=1) for i in range(n)])
    t0=time.time()
    run=await r.start(g, max_parallel=16)
    print("start",time.time()-t0)
    while True:
        w=await r.worker.work_once()
        run=await r.runs.get(run.id)
        if run.state in OVER: break
    dt=time.time()-t0
    print(run.state, dt, dt/n*1000,"ms/step", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024,"MiB")
if len(sys.argv)>2:
    import cProfile,pstats
    p=cProfile.Profile(); p.enable(); asyncio.run(main()); p.disable(); pstats.Stats(p).sort_stats("cumtime").print_stats(45)
else: asyncio.run(main())
