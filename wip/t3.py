import asyncio,time,sys
from collections import Counter
from tests.faults.simulated import *
async def main():
    t=time.time(); c=Counter()
    for seed in range(int(sys.argv[1]),int(sys.argv[2])):
        h,s=await simulate(seed); c[s.value]+=1
    print(time.time()-t,c)
import warnings
def go():
    loop=asyncio.new_event_loop(); loop.set_exception_handler(lambda *a: None)
    loop.run_until_complete(main())
go()
